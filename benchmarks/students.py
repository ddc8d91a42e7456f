"""The smartwatch student as an artifact. Untrained: speed and memory do not depend on the weights."""

from __future__ import annotations

from fogline_recipes import parameters
from fogline_recipes.smartwatch import Smartwatch
from fogline_server.compression.export import export_onnx
from fogline_shared import tensors
from fogline_shared.recipe import Standardisation


def student_artifact() -> bytes:
    """ONNX bytes of the float student."""
    recipe = Smartwatch()
    model = recipe.model("student", seed=0)
    params = b"".join(bytes(part) for part in tensors.encode(parameters.read(model)))
    channels = recipe.input_shape[0]
    neutral = Standardisation(mean=[0.0] * channels, scale=[1.0] * channels)
    return export_onnx(recipe, "student", params, neutral, "student_fp32")
