"""``fogline-agent unit``."""

from __future__ import annotations

import pwd
from pathlib import Path
from typing import Annotated

import typer

from fogline_client.terminal import DEFAULT_STATE, StateOption, failures


def unit(
    state_dir: StateOption = DEFAULT_STATE,
    *,
    user: Annotated[str, typer.Option(help="who runs it; default: the owner of the folder")] = "",
) -> None:
    """Print a systemd unit for this device: started at boot, watched, restarted, and kept from the rest of the system."""
    with failures(as_json=False):
        from fogline_client import config as settings
        from fogline_client.config import StateDir
        from fogline_client.systemd.unit import Service, agent_command

        root = state_dir.absolute()
        config = settings.load(StateDir(root=root).config)
        elsewhere = [Path(config.serve_socket).absolute().parent] if config.serve_socket else []
        service = Service(
            state_dir=root,
            user=user or _name(root.stat().st_uid),
            command=agent_command(root),
            writable=[place for place in elsewhere if place != root],
        )
        typer.echo(service.text(), nl=False)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # systemd takes numbers too
        return str(uid)
