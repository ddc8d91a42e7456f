"""Small real artifacts: ONNX graphs with a manifest, built without torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fogline_shared.manifest import METADATA_KEY, KnownAnswer, Manifest

SHAPE = (3, 8)
CLASSES = ("walk", "run", "rest", "climb")


def example(label: int, *, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """An example that every sound artifact of :func:`artifact` calls ``label``."""
    x = np.zeros(shape, dtype=np.float32)
    x.reshape(-1)[label] = 1.0
    return x


def artifact(
    *,
    scale: float = 5.0,
    shape: tuple[int, ...] = SHAPE,
    classes: tuple[str, ...] = CLASSES,
    recipe: str = "toy",
    variant: str = "student_fp32",
    shift: int = 0,
    nan: bool = False,
    known_label: int | None = None,
    manifest: str | None = "",
    **changes: object,
) -> bytes:
    """A linear classifier: logit i is ``scale`` times value i of the flattened example.

    ``shift`` makes it call class i class i + shift (a bad release); ``nan`` makes it answer NaN; ``manifest`` None
    leaves it out, a text replaces it, ``changes`` alter its fields; ``known_label`` overrides the known answer.
    """
    width = int(np.prod(shape))
    weights = np.zeros((width, len(classes)), dtype=np.float32)
    for i in range(len(classes)):
        weights[i, (i + shift) % len(classes)] = scale
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "weights"], ["raw"]),
        # log of a negative number is NaN; doing so to every logit is what a diverged model looks like
        helper.make_node("Sub", ["raw", "offset"], ["shifted"]),
        helper.make_node("Log" if nan else "Identity", ["shifted"], ["logits"]),
    ]
    offset = np.float32(1e6 if nan else 0.0)
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(classes)])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.asarray(offset), "offset")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    known = (
        KnownAnswer.of(example(1, shape=shape), (1 + shift) % len(classes) if known_label is None else known_label),
    )
    described = Manifest(
        recipe=recipe,
        variant=variant,
        input_name="input",
        input_shape=shape,
        output_name="logits",
        classes=classes,
        known_answers=() if nan and known_label is None else known,
    )
    if manifest is not None:
        text = manifest or replace(described, **changes).to_json()
        helper.set_model_props(model, {METADATA_KEY: text})
    return bytes(onnx.ModelProto.SerializeToString(model))
