"""Where batch jobs may read and write: the data folder, and what the settings name beside it. Nothing else.

Whoever may submit a job could otherwise read and overwrite every file of a worker. A name is checked twice: as text when
the job is submitted, by a coordinator that need not see the files, and with its links followed where it is opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fogline_shared.errors import InvalidInput

_LOCAL_SCHEMES = ("file://", "local://")


@dataclass(frozen=True, kw_only=True)
class Places:
    """``home`` is the data folder, to which relative names belong; ``folders`` and URL ``prefixes`` are also allowed.

    Below a folder no hidden name is allowed (``.ssh``, ``.git``), and below ``private``, the state folder, only
    ``home`` is. Every refusal is InvalidInput ``path_not_allowed``.
    """

    home: Path
    folders: tuple[Path, ...] = ()
    prefixes: tuple[str, ...] = ()
    private: Path | None = None

    @classmethod
    def of(cls, home: Path, also: str = "", *, private: Path | None = None) -> Places:
        """``also``: folders and URL prefixes, separated by commas; raises InvalidInput ``invalid_setting``."""
        names = [name.strip() for name in also.split(",") if name.strip()]
        folders = [Path(name) for name in names if "://" not in name]
        for folder in folders:
            if not folder.is_absolute() or folder == Path(folder.anchor):
                raise InvalidInput("invalid_setting", f"FOGLINE_DATA_ALLOW: {str(folder)!r} is not a folder below /")
        prefixes = tuple(name.rstrip("/") + "/" for name in names if "://" in name)
        return cls(home=home.absolute(), folders=tuple(folders), prefixes=prefixes, private=private)

    def named(self, given: str) -> str:
        """The absolute path or URL that ``given`` means, if it may be used as far as its text tells."""
        if "::" in given:
            raise _refusal(given, "a chain of file systems")
        for scheme in _LOCAL_SCHEMES:
            given = given.removeprefix(scheme)
        if "://" in given:
            return self._url(given)
        path = self.home / given
        if ".." in path.parts:
            raise _refusal(given, "a path with ..")
        if not self._allowed(path):
            raise _refusal(given, f"outside {self._told()}")
        return str(path)

    def opened(self, given: str) -> str:
        """Like :meth:`named`, with every link followed, so that what is opened is what was checked."""
        named = self.named(given)
        if "://" in named:
            return named
        real = Path(os.path.realpath(named))
        if not self._allowed(real):
            raise _refusal(given, f"a link to somewhere outside {self._told()}")
        return str(real)

    def _url(self, given: str) -> str:
        if ".." in given.lower().replace("%2e", ".").split("/"):
            raise _refusal(given, "a URL with ..")
        if not given.startswith(self.prefixes or ("\0",)):
            raise _refusal(given, f"outside {self._told()}")
        return given

    def _allowed(self, path: Path) -> bool:
        if self._below(path, [self.home]):
            return True
        hidden = self.private is not None and any(path.is_relative_to(form) for form in _forms(self.private))
        return not hidden and self._below(path, self.folders)

    @staticmethod
    def _below(path: Path, folders: Iterable[Path]) -> bool:
        for form in (form for folder in folders for form in _forms(folder)):
            if path != form and path.is_relative_to(form):
                return not any(part.startswith(".") for part in path.relative_to(form).parts)
        return False

    def _told(self) -> str:
        names = ", ".join(str(name) for name in (self.home, *self.folders, *self.prefixes))
        return f"what FOGLINE_DATA_DIR and FOGLINE_DATA_ALLOW name: {names}"


def _forms(folder: Path) -> tuple[Path, Path]:
    """A folder as it is written and as it is: paths may come in either form."""
    return folder.absolute(), Path(os.path.realpath(folder))


def _refusal(given: str, what: str) -> InvalidInput:
    return InvalidInput("path_not_allowed", f"{given[:200]!r} is {what}", path=given[:2000])
