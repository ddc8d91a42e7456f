"""What chains start from: a student's parameters as a float model, with the examples at the cloud to compress it with."""

from __future__ import annotations

from fogline_server.compression.examples import Needs, examples_of, noise_examples
from fogline_server.compression.export import fused, load_model
from fogline_server.compression.methods.base import Parent
from fogline_shared.recipe import Recipe, Standardisation


def parent_of(
    recipe: Recipe, size: str, params: bytes, standardisation: Standardisation, model: bytes, *, needs: Needs
) -> Parent:
    """What chains with these ``needs`` start from: ``model`` is what :func:`~fogline_server.compression.export.export_onnx` made of the same arguments.

    Raises as :func:`~fogline_server.compression.examples.examples_of`.
    """
    there = examples_of(recipe, needs)
    return Parent(
        **vars(there),
        model=model,
        module=fused(load_model(recipe, size, params), standardisation, rank=len(recipe.input_shape)),
        examples=noise_examples(recipe, standardisation) if there.calibration is None else there.calibration,
        augment=recipe.augment,
    )
