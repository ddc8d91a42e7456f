"""Values ↔ protobuf. The only place, beside `bulk`, the gateway's servicers and the agent's sync, that imports generated code.

Decoding raises :class:`~fogline_shared.errors.InvalidInput` ``malformed_frame`` for anything a correct peer cannot send.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fogline_shared.checks import is_digest
from fogline_shared.errors import InvalidInput
from fogline_shared.proto import edge_pb2 as pb
from fogline_shared.protocol import (
    Ack,
    BlobRef,
    Certificate,
    CloudFrame,
    DeltaStep,
    DesiredState,
    DeviceFrame,
    Hello,
    Pace,
    Report,
    Scalar,
    TaskOffer,
    TaskReply,
    TelemetryWindow,
)
from fogline_shared.sketch import Sketch

MAX_ATTRIBUTES = 64


def _attributes_to_pb(attributes: Mapping[str, Scalar]) -> pb.Attributes:
    return pb.Attributes(json=json.dumps(dict(attributes), allow_nan=False))


def _attributes_from_pb(message: pb.Attributes) -> dict[str, Scalar]:
    try:
        values: Any = json.loads(message.json or "{}")
    except ValueError as error:
        raise InvalidInput("malformed_frame", "attributes are not JSON") from error
    if not isinstance(values, dict) or len(values) > MAX_ATTRIBUTES:
        raise InvalidInput("malformed_frame", f"attributes are a JSON object of at most {MAX_ATTRIBUTES} members")
    if not all(isinstance(v, str | int | float | bool) for v in values.values()):
        raise InvalidInput("malformed_frame", "attribute values are strings, numbers or booleans")
    return values


def _sketch_to_pb(sketch: Sketch) -> pb.Sketch:
    return pb.Sketch(counts=sketch.counts if sketch.count else [], sum=sketch.sum)


def _sketch_from_pb(message: pb.Sketch) -> Sketch:
    try:
        return Sketch.of(message.counts, message.sum)
    except ValueError as error:
        raise InvalidInput("malformed_frame", str(error)) from error


def device_frame_to_pb(frame: DeviceFrame) -> pb.DeviceFrame:
    """Encode one frame from a device. A plain mapping is an attributes update."""
    match frame:
        case Hello():
            return pb.DeviceFrame(
                hello=pb.Hello(
                    boot_id=frame.boot_id,
                    agent_version=frame.agent_version,
                    recipes=frame.recipes,
                    running_tasks=frame.running_tasks,
                    active_digest=frame.active_digest,
                    generation=frame.generation,
                    attributes=_attributes_to_pb(frame.attributes),
                    inline_bytes=frame.inline_bytes,
                )
            )
        case Report():
            return pb.DeviceFrame(
                report=pb.Report(
                    assignment_id=frame.assignment_id,
                    attempt=frame.attempt,
                    seq=frame.seq,
                    boot_id=frame.boot_id,
                    state=frame.state,
                    code=frame.code,
                    message=frame.message,
                    generation=frame.generation,
                )
            )
        case TelemetryWindow():
            return pb.DeviceFrame(
                telemetry=pb.TelemetryWindow(
                    boot_id=frame.boot_id,
                    seq=frame.seq,
                    artifact_digest=frame.artifact_digest,
                    start_unix_s=frame.start,
                    end_unix_s=frame.end,
                    predictions=frame.predictions,
                    errors=frame.errors,
                    labelled=frame.labelled,
                    correct=frame.correct,
                    latency_us=_sketch_to_pb(frame.latency_us),
                    confidence_pct=_sketch_to_pb(frame.confidence_pct),
                    class_counts=frame.class_counts,
                    dropped_windows=frame.dropped_windows,
                    drift=frame.drift,
                    drift_inputs=frame.drift_inputs,
                )
            )
        case _:
            return pb.DeviceFrame(attributes=_attributes_to_pb(frame))


def device_frame_from_pb(message: pb.DeviceFrame) -> DeviceFrame:
    """Decode and validate one frame from a device."""
    match message.WhichOneof("body"):
        case "hello":
            return _hello_from_pb(message.hello)
        case "report":
            return _report_from_pb(message.report)
        case "telemetry":
            return _telemetry_from_pb(message.telemetry)
        case "attributes":
            return _attributes_from_pb(message.attributes)
        case other:
            raise InvalidInput("malformed_frame", f"unknown device frame {other!r}")


def _hello_from_pb(h: pb.Hello) -> Hello:
    if not h.boot_id:
        raise InvalidInput("malformed_frame", "a hello names its boot")
    return Hello(
        boot_id=h.boot_id,
        agent_version=h.agent_version,
        recipes=tuple(h.recipes),
        running_tasks=tuple(h.running_tasks),
        active_digest=h.active_digest,
        generation=h.generation,
        attributes=_attributes_from_pb(h.attributes),
        inline_bytes=h.inline_bytes,
    )


def _report_from_pb(r: pb.Report) -> Report:
    if not r.boot_id or not r.state:
        raise InvalidInput("malformed_frame", "a report names its boot and a state")
    return Report(
        assignment_id=r.assignment_id,
        attempt=r.attempt,
        seq=r.seq,
        boot_id=r.boot_id,
        state=r.state,
        code=r.code,
        message=r.message[:2000],
        generation=r.generation,
    )


def _telemetry_from_pb(t: pb.TelemetryWindow) -> TelemetryWindow:
    if not t.boot_id or not (math.isfinite(t.start_unix_s) and math.isfinite(t.end_unix_s)):
        raise InvalidInput("malformed_frame", "a telemetry window names its boot and finite times")
    if t.correct > t.labelled or t.labelled > t.predictions:
        raise InvalidInput("malformed_frame", "correct <= labelled <= predictions does not hold")
    return TelemetryWindow(
        boot_id=t.boot_id,
        seq=t.seq,
        artifact_digest=t.artifact_digest,
        start=t.start_unix_s,
        end=t.end_unix_s,
        predictions=t.predictions,
        errors=t.errors,
        labelled=t.labelled,
        correct=t.correct,
        latency_us=_sketch_from_pb(t.latency_us),
        confidence_pct=_sketch_from_pb(t.confidence_pct),
        class_counts=tuple(t.class_counts),
        dropped_windows=t.dropped_windows,
        drift=dict(sorted(t.drift.items())),
        drift_inputs=t.drift_inputs,
    )


def cloud_frame_to_pb(frame: CloudFrame) -> pb.CloudFrame:
    """Encode one frame from the coordinator."""
    match frame:
        case DesiredState():
            return pb.CloudFrame(
                desired=pb.DesiredState(
                    generation=frame.generation,
                    artifact_digest=frame.artifact_digest,
                    artifact_size=frame.artifact_size,
                    assignment_id=frame.assignment_id,
                    attempt=frame.attempt,
                    release_id=frame.release_id,
                    variant=frame.variant,
                    probation_s=frame.probation_s,
                )
            )
        case TaskOffer():
            return pb.CloudFrame(task=_task_to_pb(frame))
        case Pace():
            return pb.CloudFrame(
                pace=pb.Pace(
                    reconnect_min_s=frame.reconnect_min_s,
                    reconnect_max_s=frame.reconnect_max_s,
                    telemetry_every_s=frame.telemetry_every_s,
                    inline_bytes=frame.inline_bytes,
                )
            )
        case Ack():
            return pb.CloudFrame(ack=pb.Ack(seq=frame.seq))


def _task_to_pb(task: TaskOffer) -> pb.TaskOffer:
    return pb.TaskOffer(
        task_id=task.task_id,
        run_id=task.run_id,
        round=task.round,
        kind=task.kind,
        recipe=task.recipe,
        records_json=task.records_json,
        blobs=[
            pb.BlobRef(record=b.record, digest=b.digest, size=b.size, data=task.contents.get(b.digest, b""))
            for b in task.blobs
        ],
        deadline_unix_s=task.deadline,
        group_id=task.group_id,
        message_type=task.message_type,
        node_id=task.node_id,
        max_reply_bytes=task.max_reply_bytes,
        eligibility_json=task.eligibility_json,
    )


def cloud_frame_from_pb(message: pb.CloudFrame) -> CloudFrame:
    """Decode one frame from the coordinator."""
    match message.WhichOneof("body"):
        case "desired":
            d = message.desired
            return DesiredState(
                generation=d.generation,
                artifact_digest=d.artifact_digest,
                artifact_size=d.artifact_size,
                assignment_id=d.assignment_id,
                attempt=d.attempt,
                release_id=d.release_id,
                variant=d.variant,
                probation_s=d.probation_s,
            )
        case "task":
            t = message.task
            return TaskOffer(
                task_id=t.task_id,
                run_id=t.run_id,
                round=t.round,
                kind=t.kind,
                recipe=t.recipe,
                records_json=t.records_json,
                blobs=tuple(BlobRef(record=b.record, digest=b.digest, size=b.size) for b in t.blobs),
                deadline=t.deadline_unix_s,
                group_id=t.group_id,
                message_type=t.message_type,
                node_id=t.node_id,
                max_reply_bytes=t.max_reply_bytes,
                eligibility_json=t.eligibility_json,
                contents={b.digest: b.data for b in t.blobs if b.data},
            )
        case "pace":
            p = message.pace
            return Pace(
                reconnect_min_s=p.reconnect_min_s,
                reconnect_max_s=p.reconnect_max_s,
                telemetry_every_s=p.telemetry_every_s,
                inline_bytes=p.inline_bytes,
            )
        case "ack":
            return Ack(seq=message.ack.seq)
        case other:
            raise InvalidInput("malformed_frame", f"unknown cloud frame {other!r}")


def deltas_to_pb(steps: Sequence[DeltaStep]) -> pb.DeltasReply:
    """Encode how an artifact is made."""
    return pb.DeltasReply(
        steps=[
            pb.DeltaStep(
                digest=step.digest,
                size=step.size,
                base_digest=step.base,
                target_digest=step.target,
                target_size=step.target_size,
            )
            for step in steps
        ]
    )


def deltas_from_pb(message: pb.DeltasReply) -> list[DeltaStep]:
    """Decode how an artifact is made. Digests become names of files: others than digests are a malformed frame."""
    steps = [
        DeltaStep(
            digest=step.digest,
            size=step.size,
            base=step.base_digest,
            target=step.target_digest,
            target_size=step.target_size,
        )
        for step in message.steps
    ]
    if not all(is_digest(text) for step in steps for text in (step.digest, step.base, step.target)):
        raise InvalidInput("malformed_frame", "a delta is named by digests")
    return steps


def certificate_to_pb(certificate: Certificate) -> pb.Certificate:
    """Encode an issued identity."""
    return pb.Certificate(
        device_id=certificate.device_id,
        certificate_pem=certificate.certificate_pem,
        ca_pem=certificate.ca_pem,
        gateway_target=certificate.gateway_target,
        trust_root=certificate.trust_root,
    )


def certificate_from_pb(message: pb.Certificate) -> Certificate:
    """Decode an issued identity."""
    return Certificate(
        device_id=message.device_id,
        certificate_pem=message.certificate_pem,
        ca_pem=message.ca_pem,
        gateway_target=message.gateway_target,
        trust_root=message.trust_root,
    )


def reply_to_pb(reply: TaskReply, data: bytes = b"") -> pb.UploadHeader:
    """Encode the header of an upload, with the whole blob as ``data`` if that is small."""
    return pb.UploadHeader(
        task_id=reply.task_id,
        digest=reply.digest,
        size=reply.size,
        records_json=reply.records_json,
        error_code=reply.error_code,
        error_message=reply.error_message,
        data=data,
    )


def reply_from_pb(header: pb.UploadHeader) -> TaskReply:
    """Decode and validate the header of an upload."""
    if not header.task_id:
        raise InvalidInput("malformed_frame", "an upload names its task")
    if header.digest and not is_digest(header.digest):
        raise InvalidInput("malformed_frame", "a digest is 64 lower-case hexadecimal digits")
    return TaskReply(
        task_id=header.task_id,
        digest=header.digest,
        size=header.size,
        records_json=header.records_json,
        error_code=header.error_code[:100],
        error_message=header.error_message[:2000],
    )
