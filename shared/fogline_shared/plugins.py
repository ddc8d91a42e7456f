"""Extension points by name: the name in a configuration is a module's name, or an entry point's for other packages."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from fogline_shared.errors import FoglineError, InvalidInput


def _singular(dotted: str) -> str:
    """The last word, one of them: ``fogline.recipes`` → ``recipe``, ``training.strategies`` → ``strategy``."""
    word = dotted.rsplit(".", 1)[-1]
    return word.removesuffix("ies") + "y" if word.endswith("ies") else word.removesuffix("s")


def entry_point_names(group: str) -> list[str]:
    """Every installed name of an entry-point group, sorted."""
    return sorted({point.name for point in entry_points(group=group)})


def require_entry_point(group: str, name: str) -> EntryPoint:
    """The entry point, not imported; raise InvalidInput ``unknown_<kind>`` with the known names.

    The kind is the group's last word in the singular: ``fogline.recipes`` → ``recipe``.
    """
    for point in entry_points(group=group):
        if point.name == name:
            return point
    kind, known = _singular(group), entry_point_names(group)
    listed = ", ".join(known) or "none is installed"
    raise InvalidInput(f"unknown_{kind}", f"no {kind} named {name!r}; known: {listed}", name=name, known=known)


def load_entry_point(group: str, name: str) -> Any:
    """Import what ``name`` stands for; raise as :func:`require_entry_point`, or InvalidInput ``broken_<kind>``."""
    kind, point = _singular(group), require_entry_point(group, name)
    try:
        return point.load()
    except FoglineError:
        raise
    except Exception as error:  # third-party code at import: anything may happen
        message = f"{kind} {name!r} does not import: {type(error).__name__}: {error}"
        raise InvalidInput(f"broken_{kind}", message, name=name) from error


def _is_plugin(name: str) -> bool:
    return name != "base" and not name.startswith("_") and "." not in name


def module_names(package: str) -> list[str]:
    """The plugin modules of a package: every public module but ``base``, sorted."""
    path = importlib.import_module(package).__path__
    return sorted(m.name for m in pkgutil.iter_modules(path) if _is_plugin(m.name))


def load_module(package: str, name: str) -> Any:
    """Import the plugin module ``name`` of ``package``; raise InvalidInput ``unknown_<kind>`` naming the known ones."""
    loaded = sys.modules.get(f"{package}.{name}")
    if loaded is not None and _is_plugin(name):
        return loaded
    kind = _singular(package)
    known = module_names(package)
    if name not in known:
        raise InvalidInput(f"unknown_{kind}", f"no {kind} named {name!r}; known: {', '.join(known)}", known=known)
    return importlib.import_module(f"{package}.{name}")
