"""``fogline-agent predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fogline_client.terminal import DEFAULT_STATE, JsonOption, StateOption, failures, say
from fogline_shared.errors import InvalidInput


def predict(
    file: Annotated[Path, typer.Argument(help=".npy of one example or of a batch, raw units")],
    state_dir: StateOption = DEFAULT_STATE,
    *,
    as_json: JsonOption = False,
) -> None:
    """Ask the active model, in this process: the agent need not run."""
    with failures(as_json=as_json):
        import numpy as np

        from fogline_client.inference.predictor import Predictor

        try:
            x = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InvalidInput("bad_input", f"{file} is not a .npy file: {error}") from error
        with Predictor.open(state_dir) as predictor:
            model = predictor.model
            single = model is not None and x.ndim == len(model.manifest.input_shape)
            answers = predictor.predict_many(x[None] if single else x)
        facts = [{"label": a.label, "name": a.name, "confidence": round(a.confidence, 6)} for a in answers]
        say(facts, "\n".join(f"{a.name}\t{a.confidence:.3f}" for a in answers), as_json=as_json)
