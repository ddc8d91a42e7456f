"""Check that docs/errors.md names exactly the error codes of the code, each below the kind it is raised as."""

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from fogline_client.terminal import EXITS as AGENT_EXITS
from fogline_server.api.problems import _CODE_OF_STATUS, _STATUS_OF_CODE, STATUS
from fogline_server.cli.exits import OF_KIND, Exit
from fogline_server.gateway.status import STATUS as GRPC_STATUS
from fogline_shared import errors
from fogline_shared.errors import ErrorKind

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/errors.md"
CODE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")

KIND_OF_CLASS = {
    name: str(each.kind)
    for name, each in vars(errors).items()
    if isinstance(each, type) and issubclass(each, errors.FoglineError)
}
# Not raised to a user but written on a row or into an answer, each under a heading of its own.
SECTION_OF_CALL = {
    "CliError": "CLI",
    "_Refused": "UPDATE",
    "replace": "UPDATE",
    "Update": "UPDATE",
    "_late": "UPDATE",
    "Problem": "VERIFICATION",
    "Reason": "ELIGIBILITY",
    "Finding": "DOCTOR",
    # Raised, or told to the coordinator, with what the watchdog found.
    "Alarm": "CORRUPT",
}
# Where the code stands among a call's positional arguments, if not first; None: it is only given by name.
_POSITION = {"Alarm": 1, "CliError": 1, "problem": 1, "replace": None, "Update": None, "_late": None}
PLUGINS = ("codec", "engine", "fusion", "gate", "method", "recipe", "sink", "source", "stage", "strategy")
GATES = (
    *("int8_accuracy_drop", "int8_disagreement", "variant_accuracy_drop", "variant_disagreement"),
    *("worst_class_drop", "agreement", "calibration_error", "artifact_bytes", "latency_ratio"),
)
# Raises whose code is not a literal, by file and expression: the codes they come to, or () where the code was raised
# elsewhere first. A raise that is not listed here fails the check.
COMPUTED: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("server/fogline_server/api/problems.py", "code"): (),
    ("server/fogline_server/api/problems.py", "error.code"): (),
    ("server/fogline_server/batch/runner.py", "error['code']"): (),
    ("server/fogline_server/bootstrap.py", "error.code"): (),
    ("server/fogline_server/cli/follow.py", "f'{title.split(maxsplit=1)[0]}_failed'"): (
        "job_failed",
        "measurement_failed",
        "release_failed",
        "rollout_failed",
        "run_failed",
        "search_failed",
    ),
    ("server/fogline_server/coordinator.py", "code"): ("bad_address", "port_in_use"),
    ("server/fogline_server/registry/importing.py", "answer['code']"): (),
    ("server/fogline_server/registry/provenance.py", "error.code"): (),
    ("server/fogline_server/registry/tick.py", "r.gate"): GATES,
    ("shared/fogline_shared/checks.py", "code"): (
        "bad_broker",
        "invalid_ensemble",
        "invalid_option",
        "invalid_pipeline",
        "invalid_privacy",
        "invalid_release_limits",
        "invalid_run",
        "invalid_simulation",
        "invalid_source_option",
        "invalid_teaching",
    ),
    ("server/fogline_server/training/admission.py", "error.code"): (),
    ("server/fogline_server/training/offers.py", "code"): (),
    # The doctor tells of errors by the code they are raised with.
    ("client/fogline_client/doctor/disk.py", "error.code"): (),
    ("client/fogline_client/doctor/enrolment.py", "error.code"): (),
    ("client/fogline_client/doctor/model.py", "error.code"): (),
    ("client/fogline_client/doctor/model.py", "str(said['code'])"): ("model_hangs", "model_kills"),
    ("client/fogline_client/doctor/network.py", "error.code"): (),
    ("client/fogline_client/doctor/packages.py", "error.code"): (),
    ("client/fogline_client/doctor/process.py", "error.code"): (),
    ("client/fogline_client/doctor/trust.py", "error.code"): (),
    ("client/fogline_client/newcomer.py", "self._alarm.code"): (),
    ("client/fogline_client/durable.py", "code"): (
        "bad_config",
        "bad_identity",
        "bad_journal",
        "bad_pointer",
        "bad_reply",
        "bad_state_format",
        "bad_status",
    ),
    ("shared/fogline_shared/plugins.py", "f'unknown_{kind}'"): tuple(f"unknown_{kind}" for kind in PLUGINS),
    ("shared/fogline_shared/plugins.py", "f'broken_{kind}'"): ("broken_recipe",),
}


def found() -> set[tuple[str, str]]:
    """Every (section, code) of the code."""
    pairs = {("HTTP", code) for code in _CODE_OF_STATUS.values()}
    for folder in ("server", "client", "shared"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "_pb2" not in path.name:
                pairs |= set(_codes(path))
    return pairs


def _codes(path: Path) -> Iterator[tuple[str, str]]:
    where = str(path.relative_to(ROOT))
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        section = KIND_OF_CLASS.get(name) or SECTION_OF_CALL.get(name) or ("HTTP" if name == "problem" else None)
        if section is None:
            continue
        code = _argument(node, _POSITION.get(name, 0))
        for value in _values(code, where, section):
            yield section, value


def _argument(call: ast.Call, position: int | None) -> ast.expr | None:
    given = [keyword.value for keyword in call.keywords if keyword.arg == "code"]
    if given:
        return given[0]
    return call.args[position] if position is not None and len(call.args) > position else None


def _values(code: ast.expr | None, where: str, section: str) -> Iterator[str]:
    match code:
        case None:
            return
        case ast.Constant(value=str(text)):
            if CODE.fullmatch(text):
                yield text
        case ast.IfExp(body=body, orelse=other):
            yield from _values(body, where, section)
            yield from _values(other, where, section)
        case _:
            known = COMPUTED.get((where, ast.unparse(code)))
            if known is None:
                sys.exit(f"{where}: {section} with the computed code {ast.unparse(code)}: list it in COMPUTED")
            yield from known


def named(page: str) -> set[tuple[str, str]]:
    """Every (section, code) of the page."""
    pairs, section = set(), ""
    for line in page.splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif match := re.match(r"\| `([a-z0-9_]+)` \| [^|]+ \| [^|]+ \|$", line):
            pairs.add((section, match[1]))
    return pairs


def kinds() -> Iterator[str]:
    """The rows of the table of kinds, as the edges translate them."""
    for kind in ErrorKind:
        fogline, agent = OF_KIND.get(kind, Exit.OTHER), AGENT_EXITS.get(kind, 1)
        yield f"| {kind} | {STATUS[kind]} | {GRPC_STATUS[kind].name} | {int(fogline)} | {agent} |"


def main() -> None:
    """Check."""
    page = PAGE.read_text()
    code, told = found(), named(page)
    wrong = [f"missing below {section}: {name}" for section, name in sorted(code - told)]
    wrong += [f"not in the code below {section}: {name}" for section, name in sorted(told - code)]
    precise = ", ".join(f"`{name}` {status}" for name, status in sorted(_STATUS_OF_CODE.items()))
    wrong += [f"missing: {line}" for line in (*kinds(), precise) if line not in page]
    if wrong:
        sys.exit("docs/errors.md\n  " + "\n  ".join(wrong))
    print(f"docs/errors.md names all {len(code)} error codes")  # noqa: T201


if __name__ == "__main__":
    main()
