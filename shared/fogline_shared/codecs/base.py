"""How a device's update becomes fewer bytes, and parameters again. numpy only: both sides use it.

An update is what a device learned minus what it was sent, array by array. To add a codec, add a module here whose name is
the codec's. It has

- ``Options``: a frozen dataclass with defaults, validated in ``__post_init__`` (InvalidInput ``invalid_option``);
- ``nbytes(options, size)``: how many bytes ``size`` values take, exactly, so that a claim is checked before it is read;
- ``encode(options, update, rng)``: a flat float32 array of finite values → that many bytes, uint8;
- ``decode(options, packed, size)``: the inverse, flat float32, as near as the codec is; raises Corrupt ``bad_encoding`` for
  bytes that no encoder writes. Their number is right: :class:`Codec` has checked it.

What a codec loses is not lost: the device adds it to its next update (error feedback; Seide et al., Interspeech 2014;
Karimireddy et al., ICML 2019), so a codec may be biased. The contract test runs over every module here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fogline_shared.errors import Corrupt, InvalidInput
from fogline_shared.plugins import load_module, module_names

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

# The codec that changes nothing.
NONE = "none"
_PACKAGE = "fogline_shared.codecs"


@dataclass(frozen=True, kw_only=True)
class Codec:
    """A validated choice of codec."""

    name: str
    options: Any
    _nbytes: Callable[[Any, int], int]
    _encode: Callable[[Any, Floats, np.random.Generator], Bytes]
    _decode: Callable[[Any, Bytes, int], Floats]

    def options_json(self) -> dict[str, Any]:
        """Every option with its value, defaults included."""
        return asdict(self.options)

    def nbytes(self, size: int) -> int:
        """How many bytes ``size`` values become."""
        return self._nbytes(self.options, size)

    def packs(self, dtype: str, size: int) -> bool:
        """Whether an array is encoded at all: float32, and smaller for it. Both sides answer alike."""
        return dtype == "float32" and 0 < self.nbytes(size) < 4 * size

    def encode(self, update: Floats, *, seed: int) -> Bytes:
        """Any shape of finite float32 → :meth:`nbytes` bytes; the same seed gives the same bytes."""
        # Values beyond a narrow type's range become its largest; the device keeps the rest.
        with np.errstate(over="ignore", under="ignore"):
            return self._encode(self.options, update.reshape(-1), np.random.default_rng(seed))

    def decode(self, packed: Bytes, size: int) -> Floats:
        """``size`` finite values, flat. Raises Corrupt ``bad_encoding`` before it allocates what the bytes do not hold."""
        if packed.dtype != np.uint8 or packed.shape != (self.nbytes(size),):
            got = f"{packed.dtype} of shape {packed.shape}"
            raise Corrupt("bad_encoding", f"{self.name} packs {size} values in {self.nbytes(size)} bytes, not in {got}")
        return self._decode(self.options, np.ascontiguousarray(packed), size)


def names() -> list[str]:
    """Every codec there is."""
    return module_names(_PACKAGE)


def load(name: str, options: Mapping[str, Any]) -> Codec:
    """Validate; raise InvalidInput ``unknown_codec`` or ``invalid_option``."""
    module = load_module(_PACKAGE, name)
    known = [field.name for field in fields(module.Options)]
    if unknown := sorted(set(options) - set(known)):
        listed = ", ".join(known) or "none"
        raise InvalidInput("invalid_option", f"{name} has no option {unknown[0]!r}; options: {listed}", known=known)
    return Codec(
        name=name,
        options=module.Options(**options),
        _nbytes=module.nbytes,
        _encode=module.encode,
        _decode=module.decode,
    )


@dataclass(frozen=True, kw_only=True)
class Packed:
    """An encoded update. ``arrays``: bytes by name; ``residual``: what the bytes do not say, float32 in the update's shapes."""

    arrays: Mapping[str, Bytes]
    residual: Mapping[str, Floats]


def pack(codec: Codec, update: Mapping[str, Floats], residual: Mapping[str, Floats], *, seed: int) -> Packed | None:
    """Encode with error feedback: what was left over goes in, what is left over comes out.

    ``residual``: as the previous round left it. One that does not fit (another model) is forgotten; arrays that it lacks
    are zero. None: a value is not finite, so there is nothing a codec could say.
    """
    if any(name not in update or residual[name].shape != update[name].shape for name in residual):
        residual = {}
    arrays: dict[str, Bytes] = {}
    left: dict[str, Floats] = {}
    for place, (name, change) in enumerate(update.items()):
        meant = change + residual[name] if name in residual else change
        if not np.isfinite(meant).all():
            return None
        # An array's randomness is its own: not a copy of its neighbour's.
        arrays[name] = codec.encode(meant, seed=_mixed(seed, place))
        left[name] = meant - codec.decode(arrays[name], meant.size).reshape(meant.shape)
    return Packed(arrays=arrays, residual=left)


def _mixed(seed: int, place: int) -> int:
    return int(np.random.SeedSequence([seed, place]).generate_state(1, np.uint64)[0])


def split(packed: Bytes, dtype: str, count: int) -> tuple[NDArray[Any], Bytes]:
    """The first ``count`` little-endian values, and the bytes after them."""
    end = count * np.dtype(dtype).itemsize
    return packed[:end].view(np.dtype(dtype)), packed[end:]


def join(*parts: NDArray[Any]) -> Bytes:
    """Arrays' bytes, one after the other; inverse of :func:`split`."""
    return np.concatenate([np.ascontiguousarray(part).view(np.uint8) for part in parts])


def packed_bits(bits: NDArray[Any]) -> Bytes:
    """Zeros and ones of any shape, eight a byte, the last filled up with zeros."""
    return np.packbits(bits.reshape(-1).astype(np.uint8))


def split_bits(packed: Bytes, count: int) -> tuple[Bytes, Bytes]:
    """The first ``count`` bits as zeros and ones, and the bytes after them; inverse of :func:`packed_bits`.

    Raises Corrupt ``bad_encoding`` when the last byte is filled up with something else: an update is written in one way.
    """
    end = -(-count // 8)
    bits = np.unpackbits(packed[:end])
    if bits[count:].any():
        raise Corrupt("bad_encoding", "bits are set behind the last")
    return bits[:count], packed[end:]
