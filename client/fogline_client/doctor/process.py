"""Whether an agent runs here, whether it answers, and what it refused."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fogline_client import local
from fogline_client.doctor.findings import Finding
from fogline_client.doctor.patient import Patient
from fogline_shared.errors import Unavailable

_REFUSED = re.compile(r'^fogline_serving_refused_total\{code="([a-z0-9_]+)"\} (\d+)', re.MULTILINE)


def running(patient: Patient) -> Iterator[Finding]:
    """The process."""
    if patient.running or patient.identity is None:
        return
    if patient.told:
        yield Finding(
            "agent_died",
            f"the agent (process {patient.told.get('pid')}) ended without saying so: killed, out of memory, or a power cut",
            "nothing answers at the local endpoint, and the device gets no update",
            "start it (`fogline-agent run`; `fogline-agent unit` makes systemd do so); see its log and `dmesg`",
        )
    else:
        means = "nothing answers at the local endpoint, and the device gets no update"
        yield Finding("agent_not_running", "no agent runs here", means, "`fogline-agent run`", serious=False)


def serving(patient: Patient) -> Iterator[Finding]:
    """The local endpoint, and what it refused."""
    told = patient.told
    if not patient.running or not (told.get("url") or told.get("socket")):
        return
    where = local.Endpoint(url=str(told.get("url", "")), socket=str(told.get("socket", "")))
    try:
        local.get(where, "/v2/health/live", timeout_s=patient.timeout_s)
        metrics = local.get(where, "/metrics", timeout_s=patient.timeout_s)
    except Unavailable as error:
        means = "programs that ask it get no predictions: the agent hangs, or its process is overloaded"
        yield Finding(error.code, error.message, means, "restart the agent; see its log")
        return
    for code, times in _REFUSED.findall(metrics):
        yield Finding(
            "requests_refused",
            f"the local endpoint has refused {times} requests with {code} since the agent started",
            "those who asked got no prediction; everybody else was answered",
            "see the code's row in docs/errors.md, and the program that asks",
            serious=False,
        )


def connected(patient: Patient) -> Iterator[Finding]:
    """What the agent says of its connection."""
    if patient.running and patient.told and not patient.told.get("online"):
        found = f"the agent is not connected: {patient.told.get('last_error') or 'it has not been yet'}"
        means = "it tries again by itself; until then it predicts and keeps its telemetry"
        yield Finding("offline", found, means, "see what is said of the coordinator here", serious=False)


CHECKS = (running, serving, connected)
