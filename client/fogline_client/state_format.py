"""The number of the form in which an agent's folder is written, so that an agent of another version knows what it finds.

``format.json`` holds it. An older agent refuses a folder of a higher number and leaves it as it is; a newer one brings a folder of
a lower number up to its own, a step a number. A step may be repeated after a power cut: the number follows it.

The number rises when an agent of the version before could not read what is written now, or would lose some of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import structlog

from fogline_client import durable
from fogline_client.config import StateDir
from fogline_shared import __version__
from fogline_shared.errors import Conflict, Corrupt, Exhausted

log = structlog.get_logger()

FORMAT = 1

Step = Callable[[StateDir], None]
"""Makes of a folder of some number one of the next, in files replaced whole; may be repeated. Raises Exhausted ``disk_full``."""

# By the number they begin with. Folders from before there were numbers (0) are as those of 1 are.
STEPS: Mapping[int, Step] = {}


def number_of(state: StateDir, *, known: int = FORMAT) -> int:
    """The folder's number; ``known`` for a new one, 0 from before there were numbers. Changes nothing.

    Raises Conflict ``state_too_new`` when it is above ``known``, Corrupt ``bad_state_format``.
    """
    raw: Any = durable.read_json(state.format, code="bad_state_format")
    if raw is None:
        return 0 if state.config.exists() or state.identity.exists() else known
    number = raw.get("format") if isinstance(raw, dict) else None
    if type(number) is not int or number < 0:
        raise Corrupt("bad_state_format", f"{state.format} holds no number of a format", path=str(state.format))
    if number > known:
        text = f"{state.root} was written by agent {raw.get('agent', '?')} in format {number}, this one knows up to {known}"
        raise Conflict("state_too_new", f"{text}: install that version again", format=number, known=known)
    return number


def bring_up(state: StateDir, *, known: int = FORMAT, steps: Mapping[int, Step] = STEPS) -> None:
    """Make the folder one of this agent's number. Hold the folder's lock.

    Raises as :func:`number_of`, and what a step raises; the folder is then as it was, or some steps further.
    """
    number = number_of(state, known=known)
    if number == known:
        if not state.format.exists():
            _note(state, known)
        return
    while number < known:
        step = steps.get(number)
        number += 1
        if step is None:
            _note(state, number)
            continue
        step(state)
        _write(state, number)
        log.info("folder brought up", format=number)


def _note(state: StateDir, number: int) -> None:
    """Nothing was changed, so nothing is lost without it: a full disk must not keep a device from predicting."""
    try:
        _write(state, number)
    except (Exhausted, OSError) as error:
        log.warning("format not noted", reason=str(error))


def _write(state: StateDir, number: int) -> None:
    durable.write_json(state.format, {"format": number, "agent": __version__})
