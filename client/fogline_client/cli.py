"""``fogline-agent``: enrol a device, run it, look at it, ask its model, once or over streams.

Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 other (and what `doctor` finds wrong), 2 wrong usage or
input, 3 unavailable or port in use, 4 not found, 5 conflict, 6 not enrolled or refused, 7 the agent's disk (or another
limit) is full.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from fogline_client import config as settings
from fogline_client import local
from fogline_client.config import AgentConfig, StateDir
from fogline_client.cost_command import cost
from fogline_client.doctor_command import doctor
from fogline_client.predict_command import predict
from fogline_client.serving.options import ServingOptions
from fogline_client.stream_command import ring, stream
from fogline_client.terminal import DEFAULT_STATE, JsonOption, StateOption, failures, say
from fogline_client.unit_command import unit
from fogline_client.watchdog.limits import WatchdogLimits
from fogline_shared.errors import Conflict, InvalidInput, Unavailable

app = typer.Typer(name="fogline-agent", help="A Fogline device.", no_args_is_help=True, pretty_exceptions_enable=False)

PortOption = Annotated[
    int | None, typer.Option("--port", envvar="FOGLINE_AGENT_PORT", help="local prediction port; 0: any, -1: none")
]
SocketOption = Annotated[str | None, typer.Option("--socket", help="unix socket; default: agent.sock in the folder")]
ServingSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--serving",
        envvar="FOGLINE_AGENT_SERVING",
        help="name=value of the local endpoint, for example grpc_port=8481 or deadline_ms=50 (docs/serving.md); repeat it",
    ),
]
WatchdogSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--watchdog",
        envvar="FOGLINE_AGENT_WATCHDOG",
        help="name=value of when to go back to the model before, for example hang_s=5 (docs/swaps.md); repeat it",
    ),
]
SourceOption = Annotated[str | None, typer.Option(help="where examples come from, for example replay")]
RecipeOption = Annotated[
    str | None, typer.Option(envvar="FOGLINE_AGENT_RECIPE", help="recipe this device trains; none: it only infers")
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", envvar="FOGLINE_AGENT_OPTIONS", help="name=value of the recipe; repeat it"),
]
SourceOptions = Annotated[list[str] | None, typer.Option("--source-option", help="name=value of the source; repeat it")]
EngineOption = Annotated[
    str | None, typer.Option(envvar="FOGLINE_AGENT_ENGINE", help="what runs the models; default: onnxruntime_cpu")
]
EngineOptions = Annotated[list[str] | None, typer.Option("--engine-option", help="name=value of the engine; repeat it")]
Attributes = Annotated[list[str] | None, typer.Option("--attribute", help="name=value told to the coordinator")]

Metered = Annotated[bool | None, typer.Option("--metered/--unmetered", help="whether the network costs by the byte")]
Consent = Annotated[
    bool | None,
    typer.Option(
        "--consent/--no-consent", envvar="FOGLINE_AGENT_CONSENT", help="whether the owner lets this device train"
    ),
]
Personalise = Annotated[
    bool | None,
    typer.Option(
        "--personalise/--no-personalise",
        envvar="FOGLINE_AGENT_PERSONALISE",
        help="whether a head fitted to this device's own data may serve, if it wins there",
    ),
]
LocalEpsilon = Annotated[
    float | None,
    typer.Option(
        envvar="FOGLINE_AGENT_LOCAL_EPSILON",
        help="what all answers of this device may tell of its data (differential privacy): it answers none without noise of its own",
    ),
]


@app.command()
def enroll(
    token: Annotated[str, typer.Argument(envvar="FOGLINE_AGENT_TOKEN", help="what `fogline token create` printed")],
    state_dir: StateOption = DEFAULT_STATE,
    name: Annotated[str, typer.Option(envvar="FOGLINE_AGENT_NAME", help="the device's name; default: the host's")] = "",
    device_class: Annotated[str | None, typer.Option(help="hardware profile; default: generic")] = None,
    recipe: RecipeOption = None,
    option: Options = None,
    port: PortOption = None,
    socket_path: SocketOption = None,
    serving: ServingSettings = None,
    source: SourceOption = None,
    source_option: SourceOptions = None,
    engine: EngineOption = None,
    engine_option: EngineOptions = None,
    attribute: Attributes = None,
    *,
    metered: Metered = None,
    consent: Consent = None,
    personalise: Personalise = None,
    local_epsilon: LocalEpsilon = None,
    trust_root: Annotated[
        Path | None, typer.Option(help="root.json to begin with; default: the one the coordinator gives")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="give up an identity this folder already has; settings stay, unless given")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Trade a token for this device's certificate, and write its settings."""
    with failures(as_json=as_json):
        from fogline_client import acceptance, state_format
        from fogline_client import enroll as enrolment
        from fogline_client.inference.engines.base import load_engine
        from fogline_shared.plugins import require_entry_point
        from fogline_shared.recipe import GROUP

        state = StateDir(root=state_dir)
        acceptance.finish(state)
        if state.identity.exists() and not replace:
            raise Conflict("already_enrolled", f"{state_dir} already has an identity; --replace gives it up")
        chosen = _overrides(recipe, option, port, socket_path, serving, source, source_option, attribute)
        chosen |= _engine(engine, engine_option)
        chosen |= _will(metered=metered, consent=consent, personalise=personalise, local_epsilon=local_epsilon)
        chosen |= ({"name": name} if name else {}) | ({"device_class": device_class} if device_class else {})
        kept = settings.kept(state.config) if replace else {}
        config = AgentConfig(**{"name": socket.gethostname().split(".")[0].lower(), **kept, **chosen})
        # The token is single-use: what can fail on this side fails before it is spent.
        if config.recipe:
            require_entry_point(GROUP, config.recipe)
        if config.engine:
            load_engine(config.engine, config.engine_options)
        state.create()
        state_format.bring_up(state)
        settings.save(config, state.config)
        root = _read_root(trust_root) if trust_root else b""
        issued, offered = asyncio.run(
            enrolment.enroll(token, device_name=config.name, device_class=config.device_class)
        )
        acceptance.accept(state, issued, root or offered)
        facts = {"device_id": issued.device_id, "name": config.name, "gateway": issued.gateway_target}
        say(facts, f"enrolled {config.name} as {issued.device_id}; now: fogline-agent run", as_json=as_json)


@app.command("run")
def run_agent(
    state_dir: StateOption = DEFAULT_STATE,
    recipe: RecipeOption = None,
    option: Options = None,
    port: PortOption = None,
    socket_path: SocketOption = None,
    serving: ServingSettings = None,
    source: SourceOption = None,
    source_option: SourceOptions = None,
    engine: EngineOption = None,
    engine_option: EngineOptions = None,
    watchdog: WatchdogSettings = None,
    attribute: Attributes = None,
    *,
    metered: Metered = None,
    consent: Consent = None,
    personalise: Personalise = None,
    local_epsilon: LocalEpsilon = None,
) -> None:
    """Serve predictions and stay in sync until SIGINT or SIGTERM. Options override what `enroll` wrote."""
    with failures(as_json=False):
        from fogline_client import acceptance, state_format
        from fogline_client.agent import Agent
        from fogline_client.lock import only_agent

        state = StateDir(root=state_dir)
        overrides = _overrides(recipe, option, port, socket_path, serving, source, source_option, attribute)
        overrides |= _engine(engine, engine_option)
        overrides |= _will(metered=metered, consent=consent, personalise=personalise, local_epsilon=local_epsilon)
        if watchdog:
            overrides["watchdog"] = WatchdogLimits.from_json(settings.facts(watchdog))
        settings.require(state.config)
        with only_agent(state.lock):
            state_format.bring_up(state)
            acceptance.finish_if_possible(state)
            config = settings.load(state.config, overrides=overrides)
            asyncio.run(_until_signal(Agent(state, config).run))


@app.command()
def status(
    state_dir: StateOption = DEFAULT_STATE,
    *,
    check: Annotated[bool, typer.Option("--check", help="exit 3 unless the agent serves and is online")] = False,
    as_json: JsonOption = False,
) -> None:
    """What the device is and does, as far as its folder tells."""
    with failures(as_json=as_json):
        from fogline_client import durable, identity
        from fogline_client.journal import Journal
        from fogline_client.slots import read_active

        state = StateDir(root=state_dir)
        known = identity.load(state.identity)
        live: dict[str, Any] = durable.read_json(state.status, code="bad_status") or {}
        running = bool(live) and _alive(int(live["pid"]))
        pointer, ledger = read_active(state.slots), Journal(state.journal).ledger
        facts = {
            "device_id": known.device_id,
            "name": known.device_name,
            "gateway": known.gateway_target,
            "certificate_until": datetime.fromtimestamp(known.expires_at, UTC).isoformat(),
            "running": running,
            "online": running and bool(live["online"]),
            "last_error": live["last_error"] if running else "",
            "active_digest": pointer.digest if pointer else "",
            "generation": ledger.settled,
            "trusted_root": (durable.read_json(state.trust.floor, code="bad_trust_floor") or {"root": 0})["root"],
            "personal": live.get("personal", {}) if running else {},
            "update": str(ledger.attempt.step) if ledger.attempt else "",
            "task": live["task"] if running else "",
            "url": live["url"] if running else "",
            "socket": live["socket"] if running else "",
            "grpc": live.get("grpc", "") if running else "",
        }
        say(facts, "\n".join(f"{key:18} {value}" for key, value in facts.items()), as_json=as_json)
        if check:
            _check(facts)


app.command()(predict)
app.command()(stream)
app.command()(ring)
app.command()(doctor)
app.command()(cost)
app.command()(unit)


def run() -> None:
    """Entry point."""
    structlog = _structlog_alone()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
    app()


def _structlog_alone() -> ModuleType:
    """Structlog without rich, which it would load, if it is there, for tracebacks that a device's log never has.

    It is some megabytes of an agent's memory. None in ``sys.modules`` is Python's way to say that a module is not there.
    """
    if "rich" in sys.modules:
        return importlib.import_module("structlog")
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("structlog")
    finally:
        del sys.modules["rich"]


def _overrides(
    recipe: str | None,
    option: list[str] | None,
    port: int | None,
    socket_path: str | None,
    serving: list[str] | None,
    source: str | None,
    source_option: list[str] | None,
    attribute: list[str] | None,
) -> dict[str, Any]:
    """What was said on the command line, by the setting's name."""
    said = {
        "recipe": recipe,
        "recipe_options": settings.pairs(option) if option else None,
        "serve_port": port,
        "serve_socket": socket_path,
        "serving": ServingOptions.from_json(settings.facts(serving)) if serving else None,
        "source": source,
        "source_options": settings.pairs(source_option) if source_option else None,
        "attributes": settings.facts(attribute) if attribute else None,
    }
    return {name: value for name, value in said.items() if value is not None}


def _engine(name: str | None, options: list[str] | None) -> dict[str, Any]:
    """The engine that was said on the command line, by the setting's name: options are of the engine they stand beside."""
    said = {"engine": name} if name is not None else {}
    return said | ({"engine_options": settings.facts(options or [])} if said or options else {})


def _will(**said: float | None) -> dict[str, float]:
    """What the owner said on the command line, by the setting's name."""
    return {name: value for name, value in said.items() if value is not None}


async def _until_signal(serve: Callable[[asyncio.Event], Any]) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await serve(stop)


def _read_root(path: Path) -> bytes:
    """Raises InvalidInput ``bad_trust_file``; what is in it is judged by the first check."""
    try:
        root = path.read_bytes()
        if json.loads(root)["signed"]["_type"] != "root":
            raise ValueError("it is other metadata")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput("bad_trust_file", f"{path} is no root of trust: {error}") from error
    return root


def _check(facts: Mapping[str, Any]) -> None:
    """Raises Unavailable ``not_running``, ``not_serving`` or ``offline``.

    The local endpoint is asked, since a pid proves little: in a container the next process has the same.
    """
    if not facts["running"]:
        raise Unavailable("not_running", "no agent runs in this folder")
    if facts["url"] or facts["socket"]:
        local.get(local.Endpoint(url=facts["url"], socket=facts["socket"]), "/v2/health/live")
    if not facts["online"]:
        raise Unavailable("offline", facts["last_error"] or "the coordinator is not connected")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
