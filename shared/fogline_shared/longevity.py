"""What a process does once, when all it needs is loaded and a long life begins."""

from __future__ import annotations

import ctypes
import gc

# malloc.h of glibc: parameters of mallopt, and the largest threshold it takes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 << 20


def settle(*, keep_bytes: int) -> None:
    """Spare the process work that it would otherwise repeat for ever.

    The garbage collector no longer visits what exists now: a full pass over the modules of torch, flwr or SQLAlchemy
    stands still for a tenth of a second and finds nothing. And glibc's allocator keeps up to ``keep_bytes`` that were
    given back to it: buffers of a transfer or of a model come and go, and each time the kernel would clear new pages for
    them. Other allocators are left alone.
    """
    gc.collect()
    gc.freeze()
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc: musl, macOS, Windows
        return
    mallopt(_MMAP_THRESHOLD, min(keep_bytes, _LARGEST_MMAP_THRESHOLD))
    mallopt(_TRIM_THRESHOLD, keep_bytes)
