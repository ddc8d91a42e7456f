"""One JSON object a line, to standard output or at the end of a file; written through at each answer."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fogline_client.streams.answers import Answer
from fogline_client.streams.checks import text
from fogline_shared.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class JsonLines:
    """``path``: a file or FIFO; ``-``: standard output."""

    path: str | Path = "-"

    def __post_init__(self) -> None:
        text("path", self.path)

    def open(self) -> OpenLines:
        """Raise InvalidInput ``invalid_pipeline`` when the file cannot be written."""
        if str(self.path) == "-":
            return OpenLines(sys.stdout, keep=True)
        try:
            return OpenLines(Path(self.path).open("a", encoding="utf-8"), keep=False)
        except OSError as error:
            raise InvalidInput("invalid_pipeline", f"the sink cannot write {self.path}: {error}") from error


class OpenLines:
    """An OpenSink over a text file. ``keep``: it is somebody else's to close."""

    def __init__(self, file: IO[str], *, keep: bool) -> None:
        self._file = file
        self._keep = keep

    def deliver(self, answer: Answer) -> None:
        """Write a line; OSError when that fails."""
        self._file.write(json.dumps(answer.facts()) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if not self._keep:
            self._file.close()


SINK = JsonLines
