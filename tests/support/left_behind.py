"""Processes that a command has left running, however they have detached themselves."""

from __future__ import annotations

from pathlib import Path

import psutil


def processes_in(folder: Path) -> list[psutil.Process]:
    """Those whose working directory is the folder or below: who is started there stays there, or goes deeper."""
    return [process for process in psutil.process_iter() if _directory(process).is_relative_to(folder.resolve())]


def _directory(process: psutil.Process) -> Path:
    try:
        return Path(process.cwd())
    except psutil.Error:  # it has ended, is a zombie, or is somebody else's
        return Path("/")
