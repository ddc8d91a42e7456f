"""Bytes as they come from a file, a FIFO, a terminal line or a socket, in threads that can be told to stop."""

from __future__ import annotations

import os
import select
import socket
import stat
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from fogline_shared.errors import InvalidInput, Unavailable

_CHUNK = 65_536
_LOOK_S = 0.2


def chunks(place: str | Path, stop: threading.Event | None, *, baud: int = 0) -> Iterator[bytes]:
    """What can be read at ``place``: ``-`` (standard input), a path, ``tcp://HOST:PORT`` or ``unix:PATH``; ends with it.

    A FIFO lasts until ``stop``: its writers come and go. A terminal device is put into raw mode, at ``baud`` if not 0. Raises InvalidInput ``source_not_readable``, and Unavailable
    ``source_lost`` when it breaks off.
    """
    with _opened(str(place), baud) as descriptor:
        terminal = os.isatty(descriptor)
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        while stop is None or not stop.is_set():
            if not regular and not select.select([descriptor], [], [], _LOOK_S)[0]:
                continue
            try:
                data = os.read(descriptor, _CHUNK)
            except OSError as error:
                raise Unavailable("source_lost", f"{place} broke off: {error}", path=str(place)) from error
            if not data and terminal:
                raise Unavailable("source_lost", f"{place} hung up", path=str(place))
            if not data:
                return
            yield data


def lines(place: str | Path, stop: threading.Event | None, *, limit: int, baud: int = 0) -> Iterator[bytes | None]:
    """Lines without their ends; None for one that is longer than ``limit`` bytes, of which the rest is skipped."""
    rest, skipping = b"", False
    for data in chunks(place, stop, baud=baud):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            if skipping or len(line) > limit:
                skipping = False
                yield None
            else:
                yield line
        if len(rest) > limit:
            rest, skipping = b"", True
    if rest or skipping:
        yield None if skipping else rest


@contextmanager
def _opened(place: str, baud: int) -> Iterator[int]:
    """A file descriptor to read from."""
    if place == "-":
        yield 0
        return
    try:
        if place.startswith(("tcp://", "unix:")):
            connection = _connected(place)
            with connection:
                yield connection.fileno()
            return
        kind = Path(place).stat().st_mode
        # Opened to be written as well, a FIFO does not end with its last writer, nor does it wait for the first.
        mode = os.O_RDWR | os.O_NONBLOCK if stat.S_ISFIFO(kind) else os.O_RDONLY | os.O_NOCTTY
        descriptor = os.open(place, mode)
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput("source_not_readable", f"{place} cannot be read: {error}", path=place) from error
    try:
        if os.isatty(descriptor):
            _make_raw(descriptor, baud)
        yield descriptor
    finally:
        os.close(descriptor)


def _make_raw(descriptor: int, baud: int) -> None:
    """No echo, no line editing, every byte as it is; raise InvalidInput ``invalid_source_option``."""
    tty.setraw(descriptor, termios.TCSANOW)
    if not baud:
        return
    speed = getattr(termios, f"B{baud}", None)
    if speed is None:
        raise InvalidInput("invalid_source_option", f"a terminal device has no {baud} baud", field="baud")
    settings = termios.tcgetattr(descriptor)
    settings[4] = settings[5] = speed
    termios.tcsetattr(descriptor, termios.TCSANOW, settings)


def _connected(place: str) -> socket.socket:
    if place.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(place.removeprefix("unix:"))
        except OSError:
            connection.close()
            raise
        return connection
    parts = urlsplit(place)
    return socket.create_connection((parts.hostname, parts.port), timeout=10.0)
