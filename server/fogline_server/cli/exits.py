"""Exit codes of ``fogline``; ``fogline --help`` lists them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from fogline_shared.errors import ErrorKind


class Exit(IntEnum):
    OK = 0
    OTHER = 1
    INVALID = 2
    UNAVAILABLE = 3
    NOT_FOUND = 4
    CONFLICT = 5
    DENIED = 6
    FAILED = 7  # what was waited for ended badly


MEANING: Mapping[Exit, str] = {
    Exit.OK: "done",
    Exit.OTHER: "something else went wrong",
    Exit.INVALID: "the command or its input can never be right",
    Exit.UNAVAILABLE: "the coordinator or a port is not available",
    Exit.NOT_FOUND: "the named thing does not exist",
    Exit.CONFLICT: "not possible in the present state",
    Exit.DENIED: "no API key, a wrong one, or one that may not do this",
    Exit.FAILED: "the job, run, release or rollout that was waited for failed",
}

OF_KIND: Mapping[ErrorKind, Exit] = {
    ErrorKind.INVALID: Exit.INVALID,
    ErrorKind.CORRUPT: Exit.INVALID,
    ErrorKind.UNAUTHENTICATED: Exit.DENIED,
    ErrorKind.FORBIDDEN: Exit.DENIED,
    ErrorKind.NOT_FOUND: Exit.NOT_FOUND,
    ErrorKind.CONFLICT: Exit.CONFLICT,
    ErrorKind.EXHAUSTED: Exit.UNAVAILABLE,
    ErrorKind.UNAVAILABLE: Exit.UNAVAILABLE,
}
