from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EnrollRequest(_message.Message):
    __slots__ = ("token", "device_name", "csr_pem", "device_class")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    DEVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    CSR_PEM_FIELD_NUMBER: _ClassVar[int]
    DEVICE_CLASS_FIELD_NUMBER: _ClassVar[int]
    token: str
    device_name: str
    csr_pem: bytes
    device_class: str
    def __init__(self, token: _Optional[str] = ..., device_name: _Optional[str] = ..., csr_pem: _Optional[bytes] = ..., device_class: _Optional[str] = ...) -> None: ...

class ReturnRequest(_message.Message):
    __slots__ = ("certificate_pem", "csr_pem", "proof")
    CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    CSR_PEM_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    certificate_pem: bytes
    csr_pem: bytes
    proof: bytes
    def __init__(self, certificate_pem: _Optional[bytes] = ..., csr_pem: _Optional[bytes] = ..., proof: _Optional[bytes] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("csr_pem",)
    CSR_PEM_FIELD_NUMBER: _ClassVar[int]
    csr_pem: bytes
    def __init__(self, csr_pem: _Optional[bytes] = ...) -> None: ...

class Certificate(_message.Message):
    __slots__ = ("device_id", "certificate_pem", "ca_pem", "gateway_target", "trust_root")
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    CA_PEM_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_TARGET_FIELD_NUMBER: _ClassVar[int]
    TRUST_ROOT_FIELD_NUMBER: _ClassVar[int]
    device_id: str
    certificate_pem: bytes
    ca_pem: bytes
    gateway_target: str
    trust_root: bytes
    def __init__(self, device_id: _Optional[str] = ..., certificate_pem: _Optional[bytes] = ..., ca_pem: _Optional[bytes] = ..., gateway_target: _Optional[str] = ..., trust_root: _Optional[bytes] = ...) -> None: ...

class DeviceFrame(_message.Message):
    __slots__ = ("hello", "report", "telemetry", "attributes")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    TELEMETRY_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    report: Report
    telemetry: TelemetryWindow
    attributes: Attributes
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., report: _Optional[_Union[Report, _Mapping]] = ..., telemetry: _Optional[_Union[TelemetryWindow, _Mapping]] = ..., attributes: _Optional[_Union[Attributes, _Mapping]] = ...) -> None: ...

class CloudFrame(_message.Message):
    __slots__ = ("desired", "task", "pace", "ack")
    DESIRED_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    PACE_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    desired: DesiredState
    task: TaskOffer
    pace: Pace
    ack: Ack
    def __init__(self, desired: _Optional[_Union[DesiredState, _Mapping]] = ..., task: _Optional[_Union[TaskOffer, _Mapping]] = ..., pace: _Optional[_Union[Pace, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("boot_id", "agent_version", "recipes", "running_tasks", "active_digest", "generation", "attributes", "inline_bytes")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    RECIPES_FIELD_NUMBER: _ClassVar[int]
    RUNNING_TASKS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    INLINE_BYTES_FIELD_NUMBER: _ClassVar[int]
    boot_id: str
    agent_version: str
    recipes: _containers.RepeatedScalarFieldContainer[str]
    running_tasks: _containers.RepeatedScalarFieldContainer[str]
    active_digest: str
    generation: int
    attributes: Attributes
    inline_bytes: int
    def __init__(self, boot_id: _Optional[str] = ..., agent_version: _Optional[str] = ..., recipes: _Optional[_Iterable[str]] = ..., running_tasks: _Optional[_Iterable[str]] = ..., active_digest: _Optional[str] = ..., generation: _Optional[int] = ..., attributes: _Optional[_Union[Attributes, _Mapping]] = ..., inline_bytes: _Optional[int] = ...) -> None: ...

class Attributes(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("assignment_id", "attempt", "seq", "boot_id", "state", "code", "message", "generation")
    ASSIGNMENT_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    assignment_id: str
    attempt: int
    seq: int
    boot_id: str
    state: str
    code: str
    message: str
    generation: int
    def __init__(self, assignment_id: _Optional[str] = ..., attempt: _Optional[int] = ..., seq: _Optional[int] = ..., boot_id: _Optional[str] = ..., state: _Optional[str] = ..., code: _Optional[str] = ..., message: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class Sketch(_message.Message):
    __slots__ = ("counts", "sum")
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    SUM_FIELD_NUMBER: _ClassVar[int]
    counts: _containers.RepeatedScalarFieldContainer[int]
    sum: float
    def __init__(self, counts: _Optional[_Iterable[int]] = ..., sum: _Optional[float] = ...) -> None: ...

class TelemetryWindow(_message.Message):
    __slots__ = ("boot_id", "seq", "artifact_digest", "start_unix_s", "end_unix_s", "predictions", "errors", "labelled", "correct", "latency_us", "confidence_pct", "class_counts", "dropped_windows", "drift", "drift_inputs")
    class DriftEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    START_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    END_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    LABELLED_FIELD_NUMBER: _ClassVar[int]
    CORRECT_FIELD_NUMBER: _ClassVar[int]
    LATENCY_US_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_PCT_FIELD_NUMBER: _ClassVar[int]
    CLASS_COUNTS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_WINDOWS_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    DRIFT_INPUTS_FIELD_NUMBER: _ClassVar[int]
    boot_id: str
    seq: int
    artifact_digest: str
    start_unix_s: float
    end_unix_s: float
    predictions: int
    errors: int
    labelled: int
    correct: int
    latency_us: Sketch
    confidence_pct: Sketch
    class_counts: _containers.RepeatedScalarFieldContainer[int]
    dropped_windows: int
    drift: _containers.ScalarMap[str, float]
    drift_inputs: int
    def __init__(self, boot_id: _Optional[str] = ..., seq: _Optional[int] = ..., artifact_digest: _Optional[str] = ..., start_unix_s: _Optional[float] = ..., end_unix_s: _Optional[float] = ..., predictions: _Optional[int] = ..., errors: _Optional[int] = ..., labelled: _Optional[int] = ..., correct: _Optional[int] = ..., latency_us: _Optional[_Union[Sketch, _Mapping]] = ..., confidence_pct: _Optional[_Union[Sketch, _Mapping]] = ..., class_counts: _Optional[_Iterable[int]] = ..., dropped_windows: _Optional[int] = ..., drift: _Optional[_Mapping[str, float]] = ..., drift_inputs: _Optional[int] = ...) -> None: ...

class DesiredState(_message.Message):
    __slots__ = ("generation", "artifact_digest", "artifact_size", "assignment_id", "attempt", "release_id", "variant", "probation_s")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_SIZE_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    RELEASE_ID_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    PROBATION_S_FIELD_NUMBER: _ClassVar[int]
    generation: int
    artifact_digest: str
    artifact_size: int
    assignment_id: str
    attempt: int
    release_id: str
    variant: str
    probation_s: float
    def __init__(self, generation: _Optional[int] = ..., artifact_digest: _Optional[str] = ..., artifact_size: _Optional[int] = ..., assignment_id: _Optional[str] = ..., attempt: _Optional[int] = ..., release_id: _Optional[str] = ..., variant: _Optional[str] = ..., probation_s: _Optional[float] = ...) -> None: ...

class TaskOffer(_message.Message):
    __slots__ = ("task_id", "run_id", "round", "kind", "recipe", "records_json", "blobs", "deadline_unix_s", "group_id", "message_type", "node_id", "max_reply_bytes", "eligibility_json")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    RECORDS_JSON_FIELD_NUMBER: _ClassVar[int]
    BLOBS_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_TYPE_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    MAX_REPLY_BYTES_FIELD_NUMBER: _ClassVar[int]
    ELIGIBILITY_JSON_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    run_id: str
    round: int
    kind: str
    recipe: str
    records_json: str
    blobs: _containers.RepeatedCompositeFieldContainer[BlobRef]
    deadline_unix_s: float
    group_id: str
    message_type: str
    node_id: int
    max_reply_bytes: int
    eligibility_json: str
    def __init__(self, task_id: _Optional[str] = ..., run_id: _Optional[str] = ..., round: _Optional[int] = ..., kind: _Optional[str] = ..., recipe: _Optional[str] = ..., records_json: _Optional[str] = ..., blobs: _Optional[_Iterable[_Union[BlobRef, _Mapping]]] = ..., deadline_unix_s: _Optional[float] = ..., group_id: _Optional[str] = ..., message_type: _Optional[str] = ..., node_id: _Optional[int] = ..., max_reply_bytes: _Optional[int] = ..., eligibility_json: _Optional[str] = ...) -> None: ...

class BlobRef(_message.Message):
    __slots__ = ("record", "digest", "size", "data")
    RECORD_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    record: str
    digest: str
    size: int
    data: bytes
    def __init__(self, record: _Optional[str] = ..., digest: _Optional[str] = ..., size: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Pace(_message.Message):
    __slots__ = ("reconnect_min_s", "reconnect_max_s", "telemetry_every_s", "inline_bytes")
    RECONNECT_MIN_S_FIELD_NUMBER: _ClassVar[int]
    RECONNECT_MAX_S_FIELD_NUMBER: _ClassVar[int]
    TELEMETRY_EVERY_S_FIELD_NUMBER: _ClassVar[int]
    INLINE_BYTES_FIELD_NUMBER: _ClassVar[int]
    reconnect_min_s: float
    reconnect_max_s: float
    telemetry_every_s: float
    inline_bytes: int
    def __init__(self, reconnect_min_s: _Optional[float] = ..., reconnect_max_s: _Optional[float] = ..., telemetry_every_s: _Optional[float] = ..., inline_bytes: _Optional[int] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("seq",)
    SEQ_FIELD_NUMBER: _ClassVar[int]
    seq: int
    def __init__(self, seq: _Optional[int] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("digest", "offset")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    digest: str
    offset: int
    def __init__(self, digest: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class DeltasRequest(_message.Message):
    __slots__ = ("target_digest", "held", "version")
    TARGET_DIGEST_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    target_digest: str
    held: _containers.RepeatedScalarFieldContainer[str]
    version: int
    def __init__(self, target_digest: _Optional[str] = ..., held: _Optional[_Iterable[str]] = ..., version: _Optional[int] = ...) -> None: ...

class DeltasReply(_message.Message):
    __slots__ = ("steps",)
    STEPS_FIELD_NUMBER: _ClassVar[int]
    steps: _containers.RepeatedCompositeFieldContainer[DeltaStep]
    def __init__(self, steps: _Optional[_Iterable[_Union[DeltaStep, _Mapping]]] = ...) -> None: ...

class DeltaStep(_message.Message):
    __slots__ = ("digest", "size", "base_digest", "target_digest", "target_size")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    BASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TARGET_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TARGET_SIZE_FIELD_NUMBER: _ClassVar[int]
    digest: str
    size: int
    base_digest: str
    target_digest: str
    target_size: int
    def __init__(self, digest: _Optional[str] = ..., size: _Optional[int] = ..., base_digest: _Optional[str] = ..., target_digest: _Optional[str] = ..., target_size: _Optional[int] = ...) -> None: ...

class MetadataRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class MetadataReply(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class UploadMessage(_message.Message):
    __slots__ = ("header", "data")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    header: UploadHeader
    data: bytes
    def __init__(self, header: _Optional[_Union[UploadHeader, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class UploadHeader(_message.Message):
    __slots__ = ("task_id", "digest", "size", "records_json", "error_code", "error_message", "data")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    RECORDS_JSON_FIELD_NUMBER: _ClassVar[int]
    ERROR_CODE_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    digest: str
    size: int
    records_json: str
    error_code: str
    error_message: str
    data: bytes
    def __init__(self, task_id: _Optional[str] = ..., digest: _Optional[str] = ..., size: _Optional[int] = ..., records_json: _Optional[str] = ..., error_code: _Optional[str] = ..., error_message: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class UploadReceipt(_message.Message):
    __slots__ = ("duplicate", "status")
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    duplicate: bool
    status: str
    def __init__(self, duplicate: _Optional[bool] = ..., status: _Optional[str] = ...) -> None: ...

class InferRequest(_message.Message):
    __slots__ = ("release_id", "input", "shape")
    RELEASE_ID_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    release_id: str
    input: bytes
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, release_id: _Optional[str] = ..., input: _Optional[bytes] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class InferReply(_message.Message):
    __slots__ = ("scores", "variant")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    variant: str
    def __init__(self, scores: _Optional[_Iterable[float]] = ..., variant: _Optional[str] = ...) -> None: ...
