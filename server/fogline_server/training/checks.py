"""Checks of what a person typed into a run."""

from __future__ import annotations

from fogline_shared.checks import number

__all__ = ["number"]
