"""Give an ONNX file its manifest, with answers that the file itself gave here: a device must get the same ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fogline_server.compression.engine import FloatArray, open_session, run
from fogline_shared.drift import Reference
from fogline_shared.errors import Corrupt
from fogline_shared.manifest import METADATA_KEY, KnownAnswer, Manifest
from fogline_shared.recipe import Recipe

# Known answers travel with every download: how many are useful, and how many bytes of input they may hold.
KNOWN_MAX = 8
KNOWN_BYTES = 8 * 1024


def stamp(
    model: bytes,
    *,
    recipe: Recipe,
    variant: str,
    output_name: str,
    examples: FloatArray,
    calibration: FloatArray | None,
) -> bytes:
    """The file with a manifest of ``recipe`` and known answers among ``examples`` (n, *input_shape).

    ``calibration``: real inputs, whose distribution devices compare theirs with (docs/drift.md); None: there are none.
    Raises Corrupt ``logits_not_finite``, ``model_does_not_load``, ``model_does_not_run``.
    """
    manifest = Manifest(
        recipe=recipe.name,
        variant=variant,
        input_name=recipe.input_name,
        input_shape=tuple(recipe.input_shape),
        output_name=output_name,
        classes=tuple(recipe.classes),
        reference=None if calibration is None else Reference.of(calibration),
    )
    return write_manifest(model, with_answers(model, manifest, examples))


def with_answers(model: bytes, manifest: Manifest, examples: FloatArray) -> Manifest:
    """The manifest with known answers that ``model`` gives for some of ``examples``; raises like :func:`stamp`."""
    examples = coarse(examples)
    logits = run(open_session(model), examples)
    if not np.isfinite(logits).all():
        raise Corrupt("logits_not_finite", "the model answers plausible inputs with NaN or infinity")
    count = min(KNOWN_MAX, max(1, KNOWN_BYTES // examples[0].nbytes))
    answers = tuple(KnownAnswer.of(examples[i], int(logits[i].argmax())) for i in clear(logits, count))
    return replace(manifest, known_answers=answers)


def coarse(x: FloatArray) -> FloatArray:
    """The same values to eight significant bits (bfloat16): as plausible, and half as large once zstd has packed them."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    cut: FloatArray = (bits & np.uint32(0xFFFF0000)).view(np.float32)
    return cut


def clear(logits: FloatArray, count: int) -> list[int]:
    """Up to ``count`` row indices whose label is in little doubt, one label after the other.

    Another CPU rounds differently; the label of a row with a large margin between the two best logits survives that. Of the
    rows with at least a quarter of their label's largest margin the first ones are taken: they change less from release to
    release than the very clearest would, and each that changes is sent anew in a delta.
    """
    best = np.sort(logits, axis=1)
    margin = best[:, -1] - best[:, -2] if logits.shape[1] > 1 else best[:, -1]
    labels = logits.argmax(axis=1)
    order = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        doubtful = margin[rows] < margin[rows].max() / 4
        order += [
            (bool(doubt), turn, int(row)) for turn, (doubt, row) in enumerate(sorted(zip(doubtful, rows, strict=True)))
        ]
    return [row for _, _, row in sorted(order)[:count]]


def write_manifest(model: bytes, manifest: Manifest) -> bytes:
    """The file with its manifest replaced; everything else is kept."""
    import onnx

    proto = onnx.load_from_string(model)
    kept = {p.key: p.value for p in proto.metadata_props if p.key != METADATA_KEY}
    onnx.helper.set_model_props(proto, {**kept, METADATA_KEY: manifest.to_json()})
    return bytes(proto.SerializeToString(deterministic=True))


def without_manifest(model: bytes) -> bytes:
    """The plain ONNX file, which says nothing of Fogline; the graph is as it was. Raises Corrupt ``not_onnx``."""
    import onnx

    try:
        proto = onnx.load_from_string(model)
    except Exception as error:  # protobuf's decoder has several errors
        raise Corrupt("not_onnx", f"not an ONNX file: {error}"[:400]) from error
    onnx.helper.set_model_props(proto, {p.key: p.value for p in proto.metadata_props if p.key != METADATA_KEY})
    return bytes(proto.SerializeToString(deterministic=True))
