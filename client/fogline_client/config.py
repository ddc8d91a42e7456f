"""The agent's settings: written by ``fogline-agent enroll``, overridden by the options of ``fogline-agent run``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from fogline_client import durable
from fogline_client.serving.options import ServingOptions
from fogline_client.trust.layout import TrustDir
from fogline_client.watchdog.limits import WatchdogLimits
from fogline_shared.checks import finite, number
from fogline_shared.enrollment import check_device_name
from fogline_shared.errors import Corrupt, FoglineError, InvalidInput
from fogline_shared.privacy.accountant import DELTA, EPSILON
from fogline_shared.protocol import Scalar

DEFAULT_PORT = 8480


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """Validated at construction; raises InvalidInput ``bad_device_name``, ``bad_port`` or ``bad_option``."""

    name: str
    device_class: str = "generic"
    # Empty: the device infers but does not train.
    recipe: str = ""
    recipe_options: Mapping[str, str] = field(default_factory=dict)
    serve_host: str = "127.0.0.1"
    # 0: any free port; -1: no TCP.
    serve_port: int = DEFAULT_PORT
    # Empty: agent.sock in the state folder.
    serve_socket: str = ""
    serving: ServingOptions = field(default_factory=ServingOptions)
    # Empty: others bring the examples, over the local protocol.
    source: str = ""
    source_options: Mapping[str, str] = field(default_factory=dict)
    # What runs the models, a module of inference/engines; empty: the default one.
    engine: str = ""
    engine_options: Mapping[str, Scalar] = field(default_factory=dict)
    watchdog: WatchdogLimits = field(default_factory=WatchdogLimits)
    # Whether the network costs by the byte.
    metered: bool = False
    # Whether the owner lets this device train; None: nobody has asked.
    consent: bool | None = None
    # Whether a head fitted to the device's own data may serve in place of the released one; and how long a release serves
    # as it is first, so that its rollout's gates see it.
    personalise: bool = False
    personalise_after_s: float = 600.0
    # What this device's answers in training may tell of its data, all its life together; None: no bound.
    local_epsilon: float | None = None
    local_delta: float = 1e-5
    attributes: Mapping[str, Scalar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_device_name(self.name)
        if not -1 <= self.serve_port <= 65535:
            raise InvalidInput("bad_port", f"a port is 0 to 65535, or -1 for none; got {self.serve_port}")
        # The file may be edited by hand, and a "no" in quotes is no refusal.
        for name, kinds in (("metered", bool), ("consent", bool | None), ("personalise", bool)):
            if not isinstance(value := getattr(self, name), kinds):
                raise InvalidInput("bad_option", f"{name} is true or false, without quotes; got {value!r}")
        after = self.personalise_after_s
        if not finite(after) or after < 0:
            raise InvalidInput("bad_option", f"personalise_after_s is a number of seconds from 0; got {after!r}")
        if self.local_epsilon is not None:
            number("local_epsilon", self.local_epsilon, low=EPSILON[0], high=EPSILON[1], code="bad_option")
        number("local_delta", self.local_delta, low=DELTA[0], high=DELTA[1], code="bad_option")
        if self.personalise and not self.recipe:
            raise InvalidInput("bad_option", "personalising needs a recipe, which finds this device's data")


@dataclass(frozen=True, kw_only=True)
class StateDir:
    """Where everything lies below the agent's folder."""

    root: Path

    def create(self) -> None:
        """Make the folder, for this user only; raises Exhausted ``disk_full``."""
        root = self.root.absolute()
        durable.make_folder(root.parent)
        durable.make_folder(root, mode=0o700)

    @property
    def config(self) -> Path:
        return self.root / "agent.json"

    @property
    def identity(self) -> Path:
        return self.root / "identity.json"

    @property
    def enrolled(self) -> Path:
        return self.root / "enrolled.json"

    @property
    def slots(self) -> Path:
        return self.root / "slots"

    @property
    def journal(self) -> Path:
        return self.root / "journal.json"

    @property
    def spool(self) -> Path:
        return self.root / "spool.db"

    @property
    def incoming(self) -> Path:
        return self.root / "incoming"

    @property
    def outbox(self) -> Path:
        return self.root / "outbox"

    @property
    def training(self) -> Path:
        return self.root / "training"

    @property
    def personal(self) -> Path:
        return self.root / "personal"

    @property
    def measuring(self) -> Path:
        return self.root / "measuring"

    @property
    def trust(self) -> TrustDir:
        return TrustDir(path=self.root / "trust")

    @property
    def format(self) -> Path:
        return self.root / "format.json"

    @property
    def status(self) -> Path:
        return self.root / "status.json"

    @property
    def lock(self) -> Path:
        return self.root / "agent.lock"


def save(config: AgentConfig, path: Path) -> None:
    """Replace the file; raises Exhausted ``disk_full``."""
    durable.write_json(path, asdict(config))


def require(path: Path) -> None:
    """Raise InvalidInput ``not_configured`` when nobody enrolled here."""
    if not path.exists():
        raise InvalidInput("not_configured", f"no {path}: run `fogline-agent enroll TOKEN` first")


def load(path: Path, *, overrides: Mapping[str, Any] | None = None) -> AgentConfig:
    """Read the file and lay ``overrides`` over it.

    Raises InvalidInput ``not_configured`` when there is none, Corrupt ``bad_config`` when it cannot be understood.
    """
    require(path)
    raw = durable.read_json(path, code="bad_config")
    try:
        serving = ServingOptions.from_json(raw.get("serving", {}))
        watchdog = WatchdogLimits.from_json(raw.get("watchdog", {}))
        return AgentConfig(**{**raw, "serving": serving, "watchdog": watchdog, **(overrides or {})})
    except (TypeError, AttributeError) as error:  # AttributeError: the file is JSON, but no object
        raise Corrupt("bad_config", f"{path}: {error}", path=str(path)) from error


def kept(path: Path) -> dict[str, Any]:
    """The settings of a device that enrols again, by name; none when there are none, or they cannot be understood."""
    try:
        config = load(path)
    except FoglineError:
        return {}
    return {each.name: getattr(config, each.name) for each in fields(config)}


def pairs(texts: Sequence[str]) -> dict[str, str]:
    """``["a=1", "b=2"]`` as a mapping; raises InvalidInput ``bad_option``."""
    result = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InvalidInput("bad_option", f"an option is written name=value, got {text!r}")
        result[key] = value
    return result


def facts(texts: Sequence[str]) -> dict[str, Scalar]:
    """:func:`pairs` with numbers, ``true`` and ``false`` read as such; raises InvalidInput ``bad_option``."""
    return {name: _scalar(value) for name, value in pairs(texts).items()}


def _scalar(text: str) -> Scalar:
    try:
        value = json.loads(text, parse_constant=str)
    except ValueError:
        return text
    return value if isinstance(value, str | int | float | bool) else text
