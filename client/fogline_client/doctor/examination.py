"""All checks, in the order in which a person would ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from fogline_client.doctor import disk, enrolment, model, network, packages, process, trust
from fogline_client.doctor.findings import Finding
from fogline_client.doctor.patient import Patient

Check = Callable[[Patient], Iterator[Finding]]

CHECKS: Sequence[Check] = (
    *enrolment.CHECKS,
    *disk.CHECKS,
    *trust.CHECKS,
    *model.CHECKS,
    *process.CHECKS,
    *network.CHECKS,
    *packages.CHECKS,
)


def examine(patient: Patient) -> list[Finding]:
    """What is not as it should be; serious findings first. Never raises: a check that fails is a finding too."""
    if not patient.state.root.is_dir():
        found = f"there is no folder {patient.state.root}"
        do = "give the agent's folder with --state-dir, or enrol (`fogline-agent enroll TOKEN`)"
        return [Finding("no_state", found, "no device lives here", do)]
    findings: list[Finding] = []
    for check in CHECKS:
        findings += _run(check, patient)
    return sorted(findings, key=lambda finding: not finding.serious)


def _run(check: Check, patient: Patient) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(check(patient))
    except OSError as error:
        do = "look again as the agent's user, or as root; if the disk fails, `dmesg` says so"
        found.append(Finding("not_readable", str(error), f"the check of {check.__name__} was not made", do))
    except Exception as error:  # foreign bytes in any file: the other checks must be made all the same
        what = f"the check of {check.__name__} failed: {type(error).__name__}: {error}"
        found.append(Finding("check_failed", what, "something here is in a state that nobody foresaw", "report it"))
    return found
