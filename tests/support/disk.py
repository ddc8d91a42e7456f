"""Every state that a power cut may leave of a folder while some code runs, told from what the code asks the system for.

The interpreter's audit events name each open for writing, rename, removal, new folder and link, whoever makes it; ``os.fsync`` is
watched beside them. Before each of them, and at the end, the folder is kept in the extremes that a file system may leave: all is on
the disk; every name is, but of each file only what was flushed, or half of the rest; nothing is but what was flushed, names by a
flush of their folder. See Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

_CHANGES = frozenset({"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"})
_WRITES = os.O_WRONLY | os.O_RDWR

# A folder is None, a link what it points to.
Tree = Mapping[str, bytes | str | None]
Names = dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Left:
    """What is left of the folder; ``moment``: what came next. ``done``: whether the code had said so before, see :meth:`Disk.say`."""

    tree: Tree
    moment: str
    kind: str
    done: bool

    def put(self, root: Path) -> Path:
        """Make a folder of it."""
        root.mkdir()
        for name, content in self.tree.items():
            if content is None:
                (root / name).mkdir()
            elif isinstance(content, str):
                (root / name).symlink_to(content)
            else:
                (root / name).write_bytes(content)
        return root

    def __str__(self) -> str:
        return f"{self.kind}, before {self.moment}"


class Disk:
    """What is in a folder, and what of it is sure to survive: at first everything."""

    def __init__(self, root: Path, *, forgotten: str = "") -> None:
        self.left: list[Left] = []
        self._forgotten, self._kept = forgotten, set[Any]()
        self._done = False
        self._handles: dict[int, int] = {}  # kept open, so that no number is given out again
        self._links: dict[int, str] = {}
        self._root = root.stat().st_ino
        self._path = root
        self._names: dict[int, Names] = self._look()
        self._flushed = {inode: self._content(inode) for inode in self._files(self._names)}

    def say(self) -> None:
        """The code has told somebody that it is done."""
        self._done = True

    def cut(self, moment: str) -> None:
        """Keep what a power cut would leave now."""
        now = self._look()
        content = {inode: self._content(inode) for inode in self._files(now)}
        flushed = {inode: self._flushed.get(inode, b"") for inode in {*content, *self._flushed}}
        torn = {inode: data[: (len(flushed[inode]) + len(data) + 1) // 2] for inode, data in content.items()}
        torn |= {inode: data for inode, data in content.items() if data == flushed[inode]}
        kinds = {
            "all": (now, content),
            "names and half of the rest": (now, torn),
            "names": (now, flushed),
            "what was flushed": (self._names, flushed),
            "what was flushed, less what was removed": (self._less(now), flushed),
        }
        for kind, (names, data) in kinds.items():
            tree = dict(self._tree(self._root, names, data, ""))
            what = (self._done, *(each for each in tree.items() if not each[0].startswith(self._forgotten or "/")))
            if what not in self._kept:
                self._kept.add(what)
                self.left.append(Left(tree=tree, moment=moment, kind=kind, done=self._done))

    def flush(self, handle: int) -> None:
        """What ``os.fsync`` makes sure of: a file's bytes, or a folder's names."""
        found, now = os.fstat(handle), self._look()
        if stat.S_ISDIR(found.st_mode):
            self._names[found.st_ino] = now.get(found.st_ino, {})
        elif found.st_ino in self._handles:
            self._flushed[found.st_ino] = self._content(found.st_ino)

    def close(self) -> None:
        for handle in self._handles.values():
            os.close(handle)

    def _look(self) -> dict[int, Names]:
        """The names in each folder, by its inode."""
        found: dict[int, Names] = {}
        for at, folders, files, here in os.fwalk(self._path):
            names: Names = {}
            for name in (*folders, *files):
                info = os.lstat(name, dir_fd=here)
                names[name] = info.st_ino
                if stat.S_ISLNK(info.st_mode):
                    self._links[info.st_ino] = os.readlink(name, dir_fd=here)
                elif info.st_ino not in self._handles:
                    self._handles[info.st_ino] = os.open(Path(at) / name, os.O_RDONLY)
            found[os.fstat(here).st_ino] = names
        return found

    def _less(self, now: Mapping[int, Names]) -> dict[int, Names]:
        """The names that are sure, without what is nowhere any more."""
        here = {inode for names in now.values() for inode in names.values()}
        return {
            folder: {name: inode for name, inode in names.items() if inode in here or name in now.get(folder, {})}
            for folder, names in self._names.items()
        }

    def _files(self, names: Mapping[int, Names]) -> set[int]:
        return {inode for here in names.values() for inode in here.values() if self._is_file(inode)}

    def _is_file(self, inode: int) -> bool:
        return inode not in self._links and stat.S_ISREG(os.fstat(self._handles[inode]).st_mode)

    def _content(self, inode: int) -> bytes:
        return os.pread(self._handles[inode], os.fstat(self._handles[inode]).st_size, 0)

    def _tree(
        self, folder: int, names: Mapping[int, Names], data: Mapping[int, bytes], above: str
    ) -> Iterator[tuple[str, Any]]:
        for name, inode in sorted(names.get(folder, {}).items()):
            if inode in self._links:
                yield above + name, self._links[inode]
            elif self._is_file(inode):
                yield above + name, data.get(inode, b"")
            else:
                yield above + name, None
                yield from self._tree(inode, names, data, f"{above}{name}/")


_watching: list[Callable[[str], None]] = []
_lock, _mine = threading.Lock(), threading.local()


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching or not (event in _CHANGES or (event == "open" and arguments[2] & _WRITES)):
        return
    _undisturbed(lambda: _watching[0](f"{event} {str(arguments[0])[-60:]}"))


def _undisturbed(work: Callable[[], None]) -> None:
    """One at a time, and not for what is asked for in here."""
    if getattr(_mine, "inside", False):
        return
    with _lock:
        _mine.inside = True
        try:
            work()
        finally:
            _mine.inside = False


@contextmanager
def watched(root: Path, *, forgotten: str = "") -> Iterator[Disk]:
    """Watch what the code within does to ``root``, where everything is on the disk already.

    States that differ below ``forgotten`` alone are kept once: a folder that the code empties before it uses it.
    """
    if not getattr(_audit, "installed", False):
        sys.addaudithook(_audit)  # for the rest of the process: none can be removed
        _audit.installed = True  # type: ignore[attr-defined]
    disk = Disk(root, forgotten=forgotten)

    def fsync(handle: Any) -> None:
        number = handle if isinstance(handle, int) else handle.fileno()

        def flush() -> None:
            disk.cut("os.fsync")
            disk.flush(number)

        _undisturbed(flush)

    _watching.append(disk.cut)
    try:
        with mock.patch.object(os, "fsync", fsync):
            yield disk
        disk.cut("nothing more")
    finally:
        _watching.remove(disk.cut)
        disk.close()
