"""A report's page from its template, which extends ``base.html.j2`` here. Without a script or a link: it can be mailed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

# The frame of a curve or of points in the macros beside this file: a share of 0 lies at the bottom, of 1 at the top.
_LEFT, _WIDTH, _BOTTOM, _HEIGHT = 40, 540, 200, 190


def render(package: str, **values: Any) -> str:
    """The template ``report.html.j2`` in ``package`` with these values."""
    loader = ChoiceLoader([PackageLoader(package, "."), PackageLoader("fogline_server.reporting", ".")])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("report.html.j2").render(**values)


def points(curve: Sequence[tuple[int, float]], *, longest: int) -> str:
    """A polyline's points for (round from 1, share of 1) in a frame of ``longest`` rounds."""
    return " ".join(
        f"{_LEFT + _WIDTH * (at - 1) / max(1, longest - 1):.1f},{_BOTTOM - _HEIGHT * share:.1f}" for at, share in curve
    )
