"""A fleet of simulated devices that follow desired state, report and measure as agents do, on a clock the test moves.

Everything goes through the use cases the gateway calls; only the network and the models are left out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from fogline_server.db.database import Database
from fogline_server.devices.tables import Device
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.registry.tables import Release, Variant
from fogline_server.rollouts import desired, reports, service
from fogline_server.rollouts.plan import RolloutPlan
from fogline_server.rollouts.tables import Rollout
from fogline_server.rollouts.tick import tick
from fogline_server.telemetry.ingest import ingest
from fogline_shared.protocol import Report, TelemetryWindow
from fogline_shared.sketch import Sketch

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LEASE = timedelta(seconds=45)


@dataclass(frozen=True, kw_only=True)
class Model:
    """How an artifact behaves on a device.

    ``ends``: the state its update ends in; empty: it never ends; ``dies``: its device is not heard of again.
    """

    accuracy: float = 0.9
    confidence: float = 0.8
    error_rate: float = 0.0
    ends: str = "SUCCEEDED"


@dataclass(kw_only=True)
class SimDevice:
    """One device: what it runs, and its place in its sequence of frames.

    ``behaves``: what every artifact does on (or is said to do by) this device, if not what it does elsewhere.
    """

    id: str
    behaves: Model | None = None
    predictions: int | None = None
    clock: timedelta = timedelta()
    online: bool = True
    labels: bool = True
    generation: int = 0
    digest: str = ""
    boot_id: str = "boot-1"
    seq: int = 0
    sent: list[Report] = field(default_factory=list)


class Fleet:
    """Devices ``dev_00``, ``dev_01``, … and releases whose behaviour the test gives."""

    def __init__(self, db: Database, doorbell: Doorbell) -> None:
        self.db = db
        self.doorbell = doorbell
        self.now = START
        self.devices: dict[str, SimDevice] = {}
        self.models: dict[str, Model] = {}
        self.predictions = 400

    def enrol(self, count: int, *, online: bool = True, tags: tuple[str, ...] = ()) -> list[SimDevice]:
        """Add devices."""
        made = []
        for _ in range(count):
            number = len(self.devices)
            device = SimDevice(id=f"dev_{number:02}", online=online)
            with self.db.transaction() as session:
                session.add(
                    Device(
                        id=device.id, name=f"d{number}", node_id=number + 1, state="ACTIVE", tags=list(tags),
                        attributes={}, recipes=[], lease_until=self.now + LEASE if online else None,
                        created_at=self.now,
                    )
                )  # fmt: skip
            self.devices[device.id] = device
            made.append(device)
        return made

    def release(self, name: str, model: Model | None = None, *, state: str = "READY") -> str:
        """Add a release with one variant; return its id."""
        digest = self.digest(name)
        self.models[digest] = model or Model()
        with self.db.transaction() as session:
            session.add(
                Release(
                    id=f"rel_{name}", name=name, recipe="tiny", state=state, lineage={}, report={},
                    default_variant="student_int8", created_at=self.now,
                )
            )  # fmt: skip
            session.flush()
            session.add(Variant(release_id=f"rel_{name}", name="student_int8", digest=digest, size=1000))
        return f"rel_{name}"

    @staticmethod
    def digest(name: str) -> str:
        """The digest of a release's artifact."""
        return hashlib.sha256(name.encode()).hexdigest()

    def rollout(self, release_id: str, *, start: bool = True, **plan: object) -> str:
        """Create, and start, a rollout; return its id."""
        with self.db.transaction() as session:
            value = RolloutPlan.from_json({"gates": [], "soak_s": 10, **plan})
            rollout = service.create_rollout(session, release_id, value, now=self.now, actor="test")
            if start:
                service.start(session, rollout.id, now=self.now, actor="test")
            return rollout.id

    def promote(self, name: str, **plan: object) -> str:
        """Roll out a new, good release to the end; return the rollout's id."""
        rollout_id = self.rollout(self.release(name), **{"stages": [100], "soak_s": 0, **plan})
        self.until(rollout_id, "SUCCEEDED")
        return rollout_id

    def get(self, rollout_id: str) -> Rollout:
        """The rollout's row as it is."""
        with self.db.read() as session:
            return service.get_rollout(session, rollout_id)

    def stages(self, rollout_id: str) -> list[str]:
        """The states of its stages."""
        with self.db.read() as session:
            return [stage.state for stage in service.stages_of(session, rollout_id)]

    def running(self, name: str) -> list[str]:
        """The devices that run a release's artifact."""
        return [d.id for d in self.devices.values() if d.digest == self.digest(name)]

    def tick(self) -> int:
        """One pass of the coordinator."""
        return tick(self.db, now=self.now, doorbell=self.doorbell)

    def pass_time(self, seconds: float) -> None:
        """Move the clock; devices that are online stay so."""
        self.now += timedelta(seconds=seconds)
        with self.db.transaction() as session:
            for device in self.devices.values():
                row = session.get_one(Device, device.id)
                row.lease_until = self.now + LEASE if device.online else None

    def sync(self) -> None:
        """Every online device measures what it runs, then follows what it is told."""
        for device in self.devices.values():
            if device.online:
                self._measure(device)
                self._follow(device)

    def step(self, seconds: float = 5.0) -> None:
        """Time passes, the coordinator looks, the devices do their part."""
        self.pass_time(seconds)
        self.tick()
        self.sync()

    def until(self, rollout_id: str, *states: str, steps: int = 60) -> Rollout:
        """Step until the rollout is in one of ``states``."""
        for _ in range(steps):
            rollout = self.get(rollout_id)
            if rollout.state in states:
                return rollout
            self.step()
        rollout = self.get(rollout_id)
        raise AssertionError(f"{rollout.state} ({rollout.reason}), stages {self.stages(rollout_id)}, not {states}")

    def report(self, device: SimDevice, state: str, wanted: desired.DesiredState, **fields: str) -> bool:
        """Send one report; whether it was taken."""
        device.seq += 1
        report = Report(
            assignment_id=wanted.assignment_id, attempt=wanted.attempt, seq=device.seq, boot_id=device.boot_id,
            state=state, generation=wanted.generation, **fields,
        )  # fmt: skip
        return self.send(device, report)

    def send(self, device: SimDevice, report: Report) -> bool:
        """Send a report as it is, perhaps again."""
        device.sent.append(report)
        with self.db.transaction() as session:
            return reports.take(session, device.id, report, now=self.now)

    def wanted(self, device: SimDevice) -> desired.DesiredState | None:
        """What the device is told."""
        with self.db.read() as session:
            return desired.desired_of(session, [device.id]).get(device.id)

    def _follow(self, device: SimDevice) -> None:
        wanted = self.wanted(device)
        if wanted is None or wanted.generation <= device.generation:
            return
        model = device.behaves or self.models.get(wanted.artifact_digest, Model())
        if wanted.artifact_digest not in {device.digest, ""}:
            self.report(device, "DOWNLOADING", wanted)
            if not model.ends:
                return
            if model.ends == "REJECTED":
                self.report(device, "REJECTED", wanted, code="bad_manifest", message="cannot be read")
                device.generation = wanted.generation
                return
            for state in ("STAGED", "ACTIVATING", "PROBATION"):
                self.report(device, state, wanted)
            if model.ends == "dies":
                device.online = False
                return
        device.generation = wanted.generation
        if model.ends == "REVERTED":
            self.report(device, "REVERTED", wanted, code="probation_failed", message="NaN")
            return
        device.digest = wanted.artifact_digest
        self.report(device, "SUCCEEDED", wanted)

    def _measure(self, device: SimDevice) -> None:
        if not device.digest:
            return
        model = device.behaves or self.models[device.digest]
        n = self.predictions if device.predictions is None else device.predictions
        errors = round(model.error_rate * n)
        answered = n - errors
        one, clock = Sketch(), self.now + device.clock
        one.add(100.0 * model.confidence)
        confidence = Sketch(counts=[answered * count for count in one.counts], sum=answered * one.sum)
        device.seq += 1
        window = TelemetryWindow(
            boot_id=device.boot_id, seq=device.seq, artifact_digest=device.digest,
            start=clock.timestamp() - 5, end=clock.timestamp(), predictions=n, errors=errors,
            labelled=answered if device.labels else 0,
            correct=round(model.accuracy * answered) if device.labels else 0,
            latency_us=Sketch(), confidence_pct=confidence, class_counts=(answered,),
        )  # fmt: skip
        with self.db.transaction() as session:
            assert ingest(session, device.id, window, now=self.now)
            assert not ingest(session, device.id, replace(window), now=self.now)
