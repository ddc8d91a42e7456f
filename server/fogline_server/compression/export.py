"""A recipe's model and its trained parameters → one ONNX file that takes raw sensor units and knows what it is."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fogline_recipes import parameters
from fogline_server.compression.engine import FloatArray, open_session, run
from fogline_server.compression.examples import calibration_examples, noise_examples
from fogline_server.compression.stamp import stamp
from fogline_shared import tensors
from fogline_shared.errors import Corrupt, FoglineError, InvalidInput
from fogline_shared.recipe import Recipe, Standardisation

if TYPE_CHECKING:
    import torch

# Old enough for every runtime in the field, new enough for per-channel QDQ.
OPSET = 17
OUTPUT_NAME = "logits"
# Largest difference between torch's and ONNX Runtime's logits, relative to the largest logit.
PARITY = 1e-3


def export_onnx(recipe: Recipe, size: str, params: bytes, standardisation: Standardisation, variant: str) -> bytes:
    """The float32 artifact of a model whose parameters are the safetensors blob ``params``.

    Raises Corrupt ``params_mismatch``, ``params_not_finite``, ``export_mismatch``; InvalidInput ``not_exportable``.
    """
    model = load_model(recipe, size, params)
    examples = calibration_examples(recipe)
    if examples is None:
        examples = noise_examples(recipe, standardisation)
    model_bytes, expected = _trace(recipe, model, standardisation, examples)
    got = run(open_session(model_bytes), examples)
    difference = float(np.max(np.abs(got - expected)))
    if difference > PARITY * max(1.0, float(np.max(np.abs(expected)))):
        raise Corrupt("export_mismatch", f"the exported model differs from torch by {difference:.2g}", size=size)
    return stamp(model_bytes, recipe=recipe, variant=variant, output_name=OUTPUT_NAME, examples=examples)


def load_model(recipe: Recipe, size: str, params: bytes) -> torch.nn.Module:
    """A model in evaluation mode with these parameters; raises like :func:`export_onnx`."""
    model = recipe.model(size, seed=0)
    arrays = tensors.decode(params)
    parameters.write(model, arrays)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise Corrupt("params_not_finite", f"{name!r} holds NaN or infinity", size=size, name=name)
    return model.eval()


def _trace(
    recipe: Recipe, model: torch.nn.Module, standardisation: Standardisation, examples: FloatArray
) -> tuple[bytes, FloatArray]:
    """The ONNX bytes and torch's own logits for ``examples``."""
    import torch

    buffer = io.BytesIO()
    fused = _fused(model, standardisation, rank=len(recipe.input_shape))
    x = torch.from_numpy(examples)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # The tracing exporter is announced as legacy; it is 20 times faster and writes one plain file.
            warnings.simplefilter("ignore")
            expected = fused(x).numpy()
            torch.onnx.export(
                fused,
                (x,),
                cast("Any", buffer),  # its annotation is narrower than what it takes
                input_names=[recipe.input_name],
                output_names=[OUTPUT_NAME],
                dynamic_axes={recipe.input_name: {0: "batch"}, OUTPUT_NAME: {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,
            )
    except FoglineError:
        raise
    except Exception as error:  # a recipe's own modules: anything may happen
        raise InvalidInput("not_exportable", f"recipe {recipe.name!r} does not export to ONNX: {error}") from error
    if expected.shape != (len(examples), len(recipe.classes)):
        raise InvalidInput(
            "not_exportable",
            f"the model gives {expected.shape[1:]} for {len(recipe.classes)} classes",
            got=expected.shape,
        )
    if not np.isfinite(expected).all():
        raise Corrupt("params_not_finite", "the model's logits are not finite")
    return buffer.getvalue(), expected


def _fused(model: torch.nn.Module, standardisation: Standardisation, *, rank: int) -> torch.nn.Module:
    import torch

    tail = (1,) * (rank - 1)

    class Fused(torch.nn.Module):
        """Standardise, then the model. Sub and Div, since the int8 method leaves these two in float."""

        def __init__(self) -> None:
            super().__init__()
            self.mean: torch.Tensor
            self.scale: torch.Tensor
            self.register_buffer("mean", torch.tensor(standardisation.mean).reshape(1, -1, *tail))
            self.register_buffer("scale", torch.tensor(standardisation.scale).reshape(1, -1, *tail))
            self.model = model

        def forward(self, x: torch.Tensor) -> Any:
            return self.model((x - self.mean) / self.scale)

    return Fused().eval()
