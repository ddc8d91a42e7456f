"""``fogline-agent doctor``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fogline_client.terminal import DEFAULT_STATE, JsonOption, StateOption, failures, say
from fogline_shared.errors import Unavailable

if TYPE_CHECKING:
    from fogline_client.doctor.findings import Finding


def doctor(
    state_dir: StateOption = DEFAULT_STATE,
    *,
    offline: Annotated[bool, typer.Option("--offline", help="do not try to reach the coordinator")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="seconds for each step on the way to the coordinator")] = 5.0,
    as_json: JsonOption = False,
) -> None:
    """Say in words what is wrong with this device, what it means and what to do; exit 1 if it keeps it from its work."""
    with failures(as_json=as_json):
        try:
            from fogline_client.config import StateDir
            from fogline_client.doctor.examination import examine
            from fogline_client.doctor.patient import Machine, Patient
        except ModuleNotFoundError as error:
            text = f"{error.name} cannot be imported, so nothing works here: pip install 'fogline[edge]'"
            raise Unavailable("package_missing", text) from error
    machine = Machine.look(state_dir if state_dir.is_dir() else Path.cwd())
    findings = examine(Patient(state=StateDir(root=state_dir), machine=machine, network=not offline, timeout_s=timeout))
    healthy = not any(finding.serious for finding in findings)
    facts = {"healthy": healthy, "findings": [asdict(finding) for finding in findings]}
    say(facts, _text(findings), as_json=as_json)
    if not healthy:
        raise typer.Exit(1)


def _text(findings: list[Finding]) -> str:
    serious = sum(finding.serious for finding in findings)
    if not findings:
        return "all is well"
    blocks = [
        f"{'WRONG' if each.serious else 'note '}  {each.code}: {each.found}\n       {each.means}\n       → {each.do}"
        for each in findings
    ]
    end = f"{serious} wrong" if serious else "nothing is wrong"
    return "\n".join([*blocks, f"{end}, {len(findings) - serious} to know"])
