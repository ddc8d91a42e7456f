"""A small recipe package, installed as far as Python is concerned: a module and the dist-info with its entry point."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest


def install(folder: Path, factory: str, source: str = "") -> str:
    """Put the recipe ``odd`` in ``folder`` as ``module:object``, the module ``odd_recipe`` if it has a source.

    Returns the folder's path, for PYTHONPATH.
    """
    info = folder / "odd-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[fogline.recipes]\nodd = {factory}\n")
    if source:
        (folder / "odd_recipe.py").write_text(source)
    return str(folder)


def install_here(monkeypatch: pytest.MonkeyPatch, folder: Path, factory: str, source: str = "") -> None:
    """The same for this process and one test."""
    monkeypatch.syspath_prepend(install(folder, factory, source))
    monkeypatch.delitem(sys.modules, "odd_recipe", raising=False)
