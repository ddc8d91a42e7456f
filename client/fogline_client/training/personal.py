"""Fit a personal head, in a process of its own: ``python -m fogline_client.training.personal``.

One line of JSON comes by stdin (:class:`Work`), one goes by what was stdout. It ends at once when its agent does. The
personal artifact is written whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fogline_client import durable
from fogline_shared.errors import FoglineError, InvalidInput

_NICENESS = 10


@dataclass(frozen=True, kw_only=True)
class Work:
    """``options``: the recipe's, by which this device's data is found; ``target``: where the personal artifact goes."""

    recipe: str
    options: Mapping[str, str]
    released: str
    target: str


def personalised(work: Work) -> dict[str, Any]:
    """Whether a personal head was ``kept``, and both accuracies on the validation part.

    Raises InvalidInput ``not_personalisable`` (the recipe does not allow it, or the artifact is another recipe's),
    ``too_little_data``, ``no_head``, or the recipe's own; Exhausted ``disk_full``.
    """
    from fogline_recipes.personal import personalise, recipe_of
    from fogline_shared.recipe import check_data, load_recipe

    recipe, artifact = load_recipe(work.recipe), Path(work.released).read_bytes()
    if not recipe.personal:
        raise InvalidInput("not_personalisable", f"recipe {work.recipe!r} does not allow a personal head")
    if (other := recipe_of(artifact)) != work.recipe:
        raise InvalidInput("not_personalisable", f"the release is of recipe {other!r}, this device has {work.recipe!r}")
    outcome = personalise(artifact, check_data(recipe, recipe.device_data(work.options), what="this device's data"))
    if outcome.artifact is not None:
        durable.write(Path(work.target), outcome.artifact)
    return {"kept": outcome.artifact is not None, "released": outcome.released, "personal": outcome.personal}


def _end_with_the_agent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    """Work once."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    # Whatever a recipe prints goes to stderr.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    work = Work(**json.loads(sys.stdin.buffer.readline()))
    threading.Thread(target=_end_with_the_agent, daemon=True).start()
    try:
        answer = personalised(work)
    except FoglineError as error:
        answer = {"error_code": error.code, "error_message": error.message}
    except Exception as error:  # a recipe is somebody else's code, and onnx may be missing
        answer = {"error_code": "personalising_failed", "error_message": f"{type(error).__name__}: {error}"[:500]}
    answers.write(json.dumps(answer).encode() + b"\n")
    # The thread still reads stdin: an ordinary exit would wait for its lock.
    os._exit(0)


if __name__ == "__main__":
    main()
