"""Does the ONNX file answer as the torch model does? On real examples, all at once and one by one, as devices ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fogline_server.compression.engine import FloatArray, open_session, run
from fogline_shared.errors import Corrupt, InvalidInput

if TYPE_CHECKING:
    import torch
    from onnxruntime import InferenceSession

# Largest difference between torch's and ONNX Runtime's logits, relative to the largest logit.
TOLERANCE = 1e-3
# Least share of examples that both label alike: where logits lie close to each other, TOLERANCE alone says little.
AGREEMENT = 0.99
# Examples asked one by one. What a trace took for constant, a branch or a batch's size, shows there.
SINGLES = 16


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Of ``samples`` examples: the largest difference of a logit, and the share labelled alike."""

    samples: int
    max_abs_diff: float
    label_agreement: float

    def as_json(self) -> Mapping[str, Any]:
        """For the release's report."""
        return asdict(self)


def parity(module: torch.nn.Module, model: bytes, examples: FloatArray) -> Parity:
    """Compare ``module``, in evaluation mode, with the ONNX file made of it on ``examples`` (n, *input_shape).

    Raises Corrupt ``params_not_finite`` when torch answers with NaN, ``export_mismatch`` when they differ; InvalidInput
    ``not_exportable`` when the file does not take batches of any size.
    """
    session = open_session(model)
    chosen = np.unique(np.linspace(0, len(examples) - 1, min(SINGLES, len(examples))).astype(int))
    batches = [examples, *(examples[i : i + 1] for i in chosen)]
    expected = np.concatenate([_torch_says(module, batch) for batch in batches])
    got = np.concatenate([_file_says(session, batch, expected.shape[1:]) for batch in batches])
    if not np.isfinite(expected).all():
        raise Corrupt("params_not_finite", "the model's logits are not finite")
    found = Parity(
        samples=len(examples),
        max_abs_diff=float(np.abs(got - expected).max()),
        label_agreement=float(np.mean(got.argmax(axis=1) == expected.argmax(axis=1))),
    )
    allowed = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    # Written so that NaN, which compares as false, does not pass.
    if not (found.max_abs_diff <= allowed and found.label_agreement >= AGREEMENT):
        message = (
            f"the exported model differs from torch by {found.max_abs_diff:.2g} ({allowed:.2g} allowed) and labels "
            f"{found.label_agreement:.1%} alike; a branch on values, a loop or randomness in forward() is not exported"
        )
        raise Corrupt("export_mismatch", message)
    return found


def _torch_says(module: torch.nn.Module, x: FloatArray) -> FloatArray:
    import torch

    with torch.no_grad():
        said: FloatArray = module(torch.from_numpy(np.ascontiguousarray(x))).numpy()
    return said


def _file_says(session: InferenceSession, x: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    try:
        said = run(session, x)
    except Corrupt as error:
        raise _fixed_batch(len(x), error.message) from error
    if said.shape != (len(x), *shape):
        raise _fixed_batch(len(x), f"the output has shape {said.shape}")
    return said


def _fixed_batch(size: int, why: str) -> InvalidInput:
    message = f"the exported model does not take a batch of {size}: forward() must not make a constant of it; {why}"
    return InvalidInput("not_exportable", message)
