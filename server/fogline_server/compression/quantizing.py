"""What the methods that call ONNX Runtime's quantizer share: its calibration reader, its operators, its errors."""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from fogline_server.compression.engine import FloatArray
from fogline_shared.errors import Corrupt, Exhausted

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
BATCH = 64
# Everything else, the fused standardisation above all, stays in float.
OPERATORS = (
    "Conv",
    "Gemm",
    "MatMul",
    "Relu",
    "Add",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "Flatten",
    "Reshape",
)


class Batches:
    """What the quantizer calls a calibration data reader. ``even``: no smaller batch at the end, which histograms cannot take."""

    def __init__(self, name: str, x: FloatArray, *, even: bool = False) -> None:
        size = min(BATCH, len(x))
        end = len(x) // size * size if even else len(x)
        self._batches = iter([{name: x[start : start + size]} for start in range(0, end, size)])

    def get_next(self) -> Mapping[str, FloatArray] | None:
        """The next feed; None: no more."""
        return next(self._batches, None)


@contextlib.contextmanager
def quantizer_target() -> Iterator[Path]:
    """A file for the quantizer to write, gone afterwards; its errors become Corrupt ``not_quantizable``.

    But a full disk is no fault of the model's: Exhausted ``disk_full``.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            yield Path(folder) / "quantized.onnx"
        except OSError as error:
            if error.errno in _FULL:
                raise Exhausted("disk_full", f"no space left in {tempfile.gettempdir()} to quantize a model") from error
            raise Corrupt("not_quantizable", f"the model cannot be quantized: {error}") from error
        except Exception as error:  # the quantizer's errors share no base class
            raise Corrupt("not_quantizable", f"the model cannot be quantized: {error}") from error
