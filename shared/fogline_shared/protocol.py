"""The values a device and the coordinator exchange. ``wire`` turns them into protobuf and back; nothing else does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fogline_shared.sketch import Sketch

Scalar = str | int | float | bool
# Blobs up to this size travel inside a message, in either direction: a call of their own would cost more than their bytes.
INLINE_BYTES = 128 * 1024


@dataclass(frozen=True, kw_only=True)
class Hello:
    """First frame of a sync stream: who is speaking, what it already has, up to which size it takes blobs inside a message."""

    boot_id: str
    agent_version: str
    recipes: Sequence[str] = ()
    running_tasks: Sequence[str] = ()
    active_digest: str = ""
    generation: int = 0
    attributes: Mapping[str, Scalar] = field(default_factory=dict)
    inline_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Report:
    """Where a device stands with an assignment. ``seq`` grows within ``boot_id``; only a higher one is taken."""

    assignment_id: str
    attempt: int
    seq: int
    boot_id: str
    state: str
    generation: int
    code: str = ""
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class TelemetryWindow:
    """What one artifact did on one device between two instants (Unix seconds).

    ``drift``: of each feature of the input its population stability index (``fogline_shared.drift``), over ``drift_inputs`` inputs
    since the index before; empty when these are too few as yet, or the artifact has no reference.
    """

    boot_id: str
    seq: int
    artifact_digest: str
    start: float
    end: float
    predictions: int
    errors: int
    latency_us: Sketch
    confidence_pct: Sketch
    labelled: int = 0
    correct: int = 0
    class_counts: Sequence[int] = ()
    dropped_windows: int = 0
    drift: Mapping[str, float] = field(default_factory=dict)
    drift_inputs: int = 0


@dataclass(frozen=True, kw_only=True)
class DesiredState:
    """What a device should run. A higher ``generation`` replaces a lower one; an empty digest means no model."""

    generation: int
    artifact_digest: str
    artifact_size: int = 0
    assignment_id: str = ""
    attempt: int = 0
    release_id: str = ""
    variant: str = ""
    probation_s: float = 5.0


@dataclass(frozen=True, kw_only=True)
class DeltaStep:
    """A blob that makes artifact ``target`` of artifact ``base``, or of nothing (``fogline_shared.delta``). Sizes in bytes."""

    digest: str
    size: int
    base: str
    target: str
    target_size: int


@dataclass(frozen=True, kw_only=True)
class BlobRef:
    """A blob a task reads, and the Flower record it fills (``arrays``, ``teacher``)."""

    record: str
    digest: str
    size: int


@dataclass(frozen=True, kw_only=True)
class TaskOffer:
    """One Flower message for one device, or an artifact that it is to measure (``fogline_shared.measurement``).

    ``records_json`` holds the message's non-array records. ``eligibility_json``: what the run asks of the device; empty: nothing. ``contents``: small blobs, by digest; the others are
    to be fetched.
    """

    task_id: str
    run_id: str
    round: int
    kind: str
    recipe: str
    records_json: str
    blobs: Sequence[BlobRef]
    deadline: float
    group_id: str
    message_type: str
    node_id: int
    max_reply_bytes: int
    eligibility_json: str = ""
    contents: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The coordinator dictates when devices come back, so that a restart is not a stampede. Seconds.

    ``inline_bytes``: up to which size it takes a reply in the header of its upload.
    """

    reconnect_min_s: float
    reconnect_max_s: float
    telemetry_every_s: float
    inline_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Ack:
    """The highest sequence number of this boot that is safe in the database."""

    seq: int


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A device's identity as issued; PEM. ``trust_root``: at enrolment, what signed metadata begins with."""

    device_id: str
    certificate_pem: bytes
    ca_pem: bytes
    gateway_target: str
    trust_root: bytes = b""


@dataclass(frozen=True, kw_only=True)
class TaskReply:
    """Header of an upload: a device's answer to one task. An empty digest means no arrays."""

    task_id: str
    digest: str
    size: int
    records_json: str
    error_code: str = ""
    error_message: str = ""


DeviceFrame = Hello | Report | TelemetryWindow | Mapping[str, Scalar]
CloudFrame = DesiredState | TaskOffer | Pace | Ack
