"""Every setting of a server process, from the environment (``FOGLINE_…``). Read by ``bootstrap`` only."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from fogline_shared.errors import InvalidInput


class Settings(BaseSettings):
    """Defaults suit one machine; a deployment sets at least the URLs, the secret and the advertised host."""

    model_config = SettingsConfigDict(env_prefix="FOGLINE_", env_ignore_empty=True, extra="ignore")

    standalone: bool = Field(
        default=True, description="what is not given is made or assumed; a deployment says false and gives all of it"
    )

    state_dir: Path = Field(default=Path(".fogline"), description="folder for blobs, keys and the embedded database")
    database_url: str = Field(default="", description="SQLAlchemy URL; empty: SQLite in state_dir")
    redis_url: str = Field(default="redis://127.0.0.1:6379/0", description="Celery's broker and the doorbell")
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8470, description="admin REST API and console")
    gateway_host: str = "127.0.0.1"
    gateway_port: int = Field(default=8471, description="edge gateway, mutual TLS")
    enroll_port: int = Field(default=8472, description="enrolment, TLS")
    advertised_host: str = Field(
        default="127.0.0.1", description="name or address under which devices reach the gateway"
    )
    secret: SecretStr = Field(
        default=SecretStr(""), description="key for the HMAC of API keys; empty: made in state_dir"
    )
    bootstrap_api_key: SecretStr = Field(
        default=SecretStr(""), description="an admin key that exists from the first start"
    )
    tick_s: float = Field(default=0.5, gt=0, description="how often the reconcile loops look at the database")
    lease_s: float = Field(
        default=15.0, gt=0, description="how long a worker may be silent before its job is taken away"
    )
    device_lease_s: float = Field(default=45.0, gt=0, description="how long a silent device counts as online")
    certificate_days: float = Field(default=30.0, gt=0, description="life of a device certificate")
    certificate_grace_days: float = Field(
        default=180.0,
        ge=0,
        le=3650,
        description="how long after its end a device may still renew it; 0: it enrols again",
    )
    telemetry_every_s: float = Field(default=10.0, gt=0, description="length of a telemetry window")
    drift_psi: float = Field(
        default=0.25, gt=0, description="population stability index above which inputs have drifted"
    )
    drift_reports: int = Field(default=3, ge=1, description="reports in a row above it until a device is said to drift")
    trust_throwaway_keys: bool | None = Field(
        default=None,
        description="make root keys at the coordinator while there is no root of trust; default: only if standalone",
    )
    worker_concurrency: int = Field(default=3, gt=0, description="processes of a worker")
    data_dir: Path | None = Field(
        default=None, description="folder of batch jobs' files, as workers see it; default: data in state_dir"
    )
    data_allow: str = Field(
        default="", description="more folders and URL prefixes that batch jobs may read and write, comma separated"
    )
    cold_url: SecretStr = Field(
        default=SecretStr(""),
        description="fsspec URL of the tier that holds every blob; empty: only blobs in state_dir do",
    )
    cold_timeout_s: float = Field(default=30.0, gt=0, description="how long one request to the cold tier may take")
    hot_bytes: int | None = Field(
        default=None, gt=0, description="what the blobs in state_dir may take; needs a cold tier; default: no bound"
    )
    collect_every_s: float = Field(default=0.0, ge=0, description="how often blobs nobody needs are removed; 0: never")
    collect_grace_s: float = Field(
        default=86_400.0, ge=3600, description="how long the collector leaves a blob alone after it was written"
    )
    worker_alive_file: Path | None = Field(
        default=None, description="touched every few seconds by a worker that takes work; for a health check"
    )

    def require(self, *names: str) -> None:
        """Unless this is a standalone installation, these must be given; raises InvalidInput ``missing_setting``."""
        missing = [f"FOGLINE_{name.upper()}" for name in names if name not in self.model_fields_set]
        if missing and not self.standalone:
            raise InvalidInput("missing_setting", f"a deployment must set {', '.join(missing)}", names=missing)

    @property
    def resolved_database_url(self) -> str:
        """The given URL, or SQLite in the state folder."""
        return self.database_url or f"sqlite:///{(self.state_dir / 'fogline.db').absolute()}"

    @property
    def blob_dir(self) -> Path:
        """Where blobs lie; share it between the coordinator and its workers."""
        return self.state_dir / "blobs"

    @property
    def resolved_data_dir(self) -> Path:
        """The given folder, or ``data`` in the state folder."""
        return self.data_dir or self.state_dir / "data"

    @property
    def key_dir(self) -> Path:
        """Where the certificate authority and other secrets lie, mode 0600."""
        return self.state_dir / "keys"

    @property
    def trust_dir(self) -> Path:
        """Where the keys lie that sign what devices may install."""
        return self.key_dir / "trust"

    @property
    def makes_throwaway_keys(self) -> bool:
        """Whether a first start may do without a key ceremony."""
        return self.standalone if self.trust_throwaway_keys is None else self.trust_throwaway_keys
