"""A device's reply, encoded as the task asks, if this device knows how; what the encoding loses is kept for the next round.

The task's config names a codec (``codec``, ``codec_options`` as JSON, ``round``). The reply's record ``encoding`` says what
was done: without it the arrays are plain, as those of a device that has never heard of codecs. Running statistics
(BatchNorm's) are always plain, and so is an array that an encoding would not make smaller.

The residual lies in the context's state, a record a round: a task that comes again, after a crash say, finds what the round
before it left, and not what it has already added once.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fogline_shared import flower
from fogline_shared.codecs import base as codecs
from fogline_shared.codecs.base import Codec
from fogline_shared.errors import InvalidInput
from fogline_shared.flower import ConfigRecord, RecordDict

if TYPE_CHECKING:
    from flwr.app import Context

_RESIDUAL = "residual-"

Arrays = Mapping[str, NDArray[Any]]


def asked(config: Mapping[str, Any]) -> Codec | None:
    """The codec of a task; None when it wants none, or one that this device does not know."""
    if "codec" not in config:
        return None
    try:
        return codecs.load(str(config["codec"]), json.loads(config["codec_options"]))
    except (InvalidInput, KeyError, TypeError, ValueError):
        return None


def encode(
    trained: Arrays, sent: Arrays, config: Mapping[str, Any], context: Context, *, running: Collection[str], seed: int
) -> RecordDict:
    """The reply's record ``arrays``, and ``encoding`` when it is encoded. Writes the new residual to the context's state.

    ``trained``: the parameters after training; ``sent``: before; ``running``: names of running statistics.
    """
    plain = RecordDict({"arrays": flower.to_record(trained)})
    codec = asked(config)
    if codec is None:
        return plain
    names = [
        name
        for name, new in trained.items()
        if name not in running and new.dtype == sent[name].dtype and codec.packs(new.dtype.name, new.size)
    ]
    update = {name: trained[name] - sent[name] for name in names}
    number = int(config["round"])
    packed = codecs.pack(codec, update, _residual(context, number), seed=seed)
    if packed is None:
        # Not a number somewhere: admission will say so, and the residual stays as it is.
        return plain
    _keep(context, number, packed.residual)
    arrays = {name: packed.arrays.get(name, new) for name, new in trained.items()}
    return RecordDict({"arrays": flower.to_record(arrays), "encoding": ConfigRecord({"codec": codec.name})})


def _residual(context: Context, number: int) -> Mapping[str, NDArray[np.float32]]:
    """As the last round before this one left it."""
    before = [known for known in _rounds(context) if known < number]
    return flower.arrays_of(context.state.array_records[f"{_RESIDUAL}{max(before)}"]) if before else {}


def _keep(context: Context, number: int, residual: Arrays) -> None:
    """Keep this round's beside the one it was made from; forget the rest."""
    known = _rounds(context)
    needed = {max((n for n in known if n < number), default=number), number}
    for other in set(known) - needed:
        del context.state[f"{_RESIDUAL}{other}"]
    context.state[f"{_RESIDUAL}{number}"] = flower.to_record(residual)


def _rounds(context: Context) -> list[int]:
    return [int(name.removeprefix(_RESIDUAL)) for name in context.state if name.startswith(_RESIDUAL)]
