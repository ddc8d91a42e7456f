"""Make what the example needs: a recording of two sensors, and a model small enough to write by hand.

The recording is made up: somebody's wrist is still, waves, or turns, four seconds each. The accelerometer has 50 samples a
second, the gyroscope 104; both with jitter and lost samples, and the gyroscope is out for half a second.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fogline_shared.manifest import METADATA_KEY, Manifest

HERE = Path(__file__).resolve().parent
CLASSES = ("still", "wave", "turn")
CHANNELS, LENGTH = 6, 64
SEGMENT_S, SEGMENTS = 4.0, (0, 1, 2, 0, 1, 2)


def recording(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """``NAME.t`` (n,) in seconds and ``NAME.x`` (n, 3), as the source ``recording`` reads them."""
    arrays = {}
    for name, rate, moving, outage in (("accelerometer", 50, 1, None), ("gyroscope", 104, 2, (13.0, 13.5))):
        t = np.arange(0, SEGMENT_S * len(SEGMENTS), 1 / rate)
        t = np.round(t + rng.uniform(-0.002, 0.002, len(t)).clip(-t), 4)
        t = t[rng.random(len(t)) > 0.02]
        if outage:
            t = t[(t < outage[0]) | (t > outage[1])]
        activity = np.array(SEGMENTS)[np.minimum(t // SEGMENT_S, len(SEGMENTS) - 1).astype(int)]
        swing = np.sin(2 * np.pi * 1.5 * t[:, None] + np.arange(3))
        x = rng.normal(0, 0.05, (len(t), 3)) + swing * (activity == moving)[:, None]
        arrays |= {f"{name}.t": t, f"{name}.x": x.astype(np.float32)}
    return arrays


def model() -> bytes:
    """Variance over the window of each channel; the sensor that varies more says what it is."""
    weights = np.zeros((CHANNELS, len(CLASSES)), dtype=np.float32)
    weights[:3, 1] = weights[3:, 2] = 6.0
    bias = np.array([2.0, 0.0, 0.0], dtype=np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[2], keepdims=1),
        helper.make_node("Sub", ["input", "mean"], ["centred"]),
        helper.make_node("ReduceSumSquare", ["centred"], ["power"], axes=[2], keepdims=0),
        helper.make_node("Mul", ["power", "share"], ["variance"]),
        helper.make_node("Gemm", ["variance", "weights", "bias"], ["logits"]),
    ]
    constants = {"weights": weights, "bias": bias, "share": np.array(1 / LENGTH, dtype=np.float32)}
    graph = helper.make_graph(
        nodes,
        "wrist",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", CHANNELS, LENGTH])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(CLASSES)])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    manifest = Manifest(
        recipe="wrist",
        variant="student_fp32",
        input_name="input",
        input_shape=(CHANNELS, LENGTH),
        output_name="logits",
        classes=CLASSES,
    )
    helper.set_model_props(built, {METADATA_KEY: manifest.to_json()})
    return bytes(built.SerializeToString())


def main() -> None:
    """Write ``recording.npz`` and ``model.onnx`` beside this file."""
    np.savez(HERE / "recording.npz", **recording(np.random.default_rng(1)))
    (HERE / "model.onnx").write_bytes(model())
    onnx.checker.check_model(str(HERE / "model.onnx"))


if __name__ == "__main__":
    main()
