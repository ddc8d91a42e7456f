"""A recipe's model and its trained parameters → one ONNX file that takes raw sensor units and knows what it is."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fogline_recipes import parameters
from fogline_server.compression.engine import FloatArray
from fogline_server.compression.examples import calibration_examples, noise_examples
from fogline_server.compression.parity import parity
from fogline_server.compression.stamp import stamp
from fogline_shared import tensors
from fogline_shared.errors import Corrupt, FoglineError, InvalidInput
from fogline_shared.recipe import Recipe, Standardisation

if TYPE_CHECKING:
    import torch

# Old enough for every runtime in the field, new enough for per-channel QDQ.
OPSET = 17
OUTPUT_NAME = "logits"


def export_onnx(recipe: Recipe, size: str, params: bytes, standardisation: Standardisation, variant: str) -> bytes:
    """The float32 artifact of a model whose parameters are the safetensors blob ``params``.

    Raises Corrupt ``params_mismatch``, ``params_not_finite``, ``export_mismatch``; InvalidInput ``not_exportable``.
    """
    model = fused(load_model(recipe, size, params), standardisation, rank=len(recipe.input_shape))
    calibration = calibration_examples(recipe)
    examples = noise_examples(recipe, standardisation) if calibration is None else calibration
    model_bytes = export_module(
        model, examples, input_name=recipe.input_name, output_name=OUTPUT_NAME, classes=len(recipe.classes)
    )
    return stamp(
        model_bytes,
        recipe=recipe,
        variant=variant,
        output_name=OUTPUT_NAME,
        examples=examples,
        calibration=calibration,
    )


def export_module(
    module: torch.nn.Module, examples: FloatArray, *, input_name: str, output_name: str, classes: int
) -> bytes:
    """The float32 ONNX file, without a manifest, of a module in evaluation mode that takes raw units.

    It is traced with ``examples`` (n, *input_shape), for which torch and ONNX Runtime must agree. Raises Corrupt
    ``params_not_finite``, ``export_mismatch``; InvalidInput ``not_exportable``.
    """
    model_bytes, shape = _trace(module, examples, input_name, output_name)
    if shape != (len(examples), classes):
        message = f"the model gives {shape[1:]} for {classes} classes"
        raise InvalidInput("not_exportable", message, got=shape)
    parity(module, model_bytes, examples)
    return model_bytes


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
    module: torch.nn.Module, examples: FloatArray, input_name: str, output_name: str
) -> tuple[bytes, tuple[int, ...]]:
    """The ONNX bytes and the shape of torch's own answer to ``examples``."""
    import torch

    buffer = io.BytesIO()
    x = torch.from_numpy(examples)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # The tracing exporter is announced as legacy; it is 20 times faster and writes one plain file.
            warnings.simplefilter("ignore")
            shape = tuple(module(x).shape)
            torch.onnx.export(
                module,
                (x,),
                cast("Any", buffer),  # its annotation is narrower than what it takes
                input_names=[input_name],
                output_names=[output_name],
                dynamic_axes={input_name: {0: "batch"}, output_name: {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,
            )
    except FoglineError:
        raise
    except Exception as error:  # a recipe's own modules: anything may happen
        raise InvalidInput("not_exportable", f"the model does not export to ONNX: {error}") from error
    return _without_aliases(buffer.getvalue()), shape


def _without_aliases(model: bytes) -> bytes:
    """The file with equal parameters stored each by itself: behind the exporter's Identity, no quantizer finds them."""
    import onnx

    proto = onnx.load_from_string(model)
    graph = proto.graph
    values = {value.name: value for value in graph.initializer}
    aliases = [node for node in graph.node if node.op_type == "Identity" and node.input[0] in values]
    if not aliases:
        return model
    for node in aliases:
        own = graph.initializer.add()
        own.CopyFrom(values[node.input[0]])
        own.name = node.output[0]
        graph.node.remove(node)
    return bytes(proto.SerializeToString(deterministic=True))


def fused(model: torch.nn.Module, standardisation: Standardisation, *, rank: int) -> torch.nn.Module:
    """A module, in evaluation mode, that takes raw units: it standardises axis 1 of an example's ``rank``, then asks ``model``."""
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
