"""Child processes that never outlive their parent, however it ends (on Linux; elsewhere only an orderly end is covered)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with(parent: int) -> None:
    """Have the kernel kill this process when ``parent`` dies. System calls only, so it is fit for ``preexec_fn``."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)


def signal_group(leader: int, number: int) -> None:
    """Signal every process in the group of a child that leads one; a group that has ended is fine."""
    with suppress(ProcessLookupError):
        os.killpg(leader, number)
