"""A device that the doctor examines."""

from __future__ import annotations

import json
from dataclasses import replace

from lone_device import LoneDevice
from typer.testing import CliRunner

from fogline_client.cli import app
from fogline_client.doctor.examination import examine
from fogline_client.doctor.patient import Machine, Patient


class Device(LoneDevice):
    """One that is examined."""

    def doctor(self, *options: str) -> tuple[int, dict[str, bool]]:
        """Exit status, and what was found: whether it is serious, by code."""
        done = CliRunner().invoke(
            app, ["doctor", "--json", "--state-dir", str(self.root), *(options or ("--offline",))]
        )
        assert not done.exception or isinstance(done.exception, SystemExit), done.exception
        said = json.loads(done.stdout)
        assert said["healthy"] == (done.exit_code == 0)
        return done.exit_code, {finding["code"]: finding["serious"] for finding in said["findings"]}

    def patient(self, **changes: object) -> Patient:
        return Patient(state=self.state, machine=replace(Machine.look(self.root), **changes), network=False)

    def codes(self, **changes: object) -> set[str]:
        """What is found when the machine is as ``changes`` say."""
        return {finding.code for finding in examine(self.patient(**changes))}
