"""The search's kinds of jobs. The bodies import onnx, ONNX Runtime and torch, so they load when a job runs."""

from __future__ import annotations

from fogline_server.jobs.runner import JobContext, JobKind, Outcome
from fogline_server.jobs.service import stop_children
from fogline_server.search.service import CANDIDATE, QUEUE, SEARCH


def _search(ctx: JobContext) -> Outcome:
    from fogline_server.search.runner import run_search

    return run_search(ctx)


def _candidate(ctx: JobContext) -> Outcome:
    from fogline_server.search.candidate import run_candidate

    return run_candidate(ctx)


KINDS = (
    JobKind(name=SEARCH, queue=QUEUE, run=_search, on_failure=stop_children),
    JobKind(
        name=CANDIDATE,
        queue=QUEUE,
        run=_candidate,
        instead_of_retry="try its search again, or start another one, which finds what was made",
    ),
)
