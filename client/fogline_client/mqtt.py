"""How a source and a sink reach an MQTT broker. Needs paho-mqtt, the extra ``mqtt``."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from fogline_shared.checks import number
from fogline_shared.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from paho.mqtt.client import Client

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Broker:
    """Where it is and who we are there. ``tls`` trusts the system's roots, or those in ``ca_file``.

    The password is the first line of ``password_file``. Raises InvalidInput ``bad_broker`` and Unavailable
    ``extra_missing``.
    """

    host: str = "127.0.0.1"
    port: int = 1883
    client_id: str = ""
    username: str = ""
    password_file: str = ""
    tls: bool = False
    ca_file: str = ""

    def __post_init__(self) -> None:
        number("port", self.port, low=1, high=65_535, whole=True, code="bad_broker")
        for name in ("host", "client_id", "username", "password_file", "ca_file"):
            value = getattr(self, name)
            if not isinstance(value, str) or (name == "host" and not value):
                raise InvalidInput("bad_broker", f"{name} is a text, got {value!r}", field=name)
        if not isinstance(self.tls, bool):
            raise InvalidInput("bad_broker", f"tls is true or false, without quotes; got {self.tls!r}", field="tls")
        if self.ca_file and not self.tls:
            raise InvalidInput("bad_broker", "ca_file has no use without tls = true", field="tls")
        if importlib.util.find_spec("paho") is None:
            raise Unavailable("extra_missing", "MQTT needs paho-mqtt: install fogline[mqtt]", extra="mqtt")

    def client(self, *, queue: int) -> Client:
        """A client that is about to connect, and does so again whenever the connection is lost; start its loop.

        ``queue`` bounds what waits to be sent. Raises InvalidInput ``bad_broker`` when a file cannot be read.
        """
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        client = Client(CallbackAPIVersion.VERSION2, client_id=self.client_id)
        try:
            if self.username:
                password = Path(self.password_file).read_text().split("\n")[0] if self.password_file else None
                client.username_pw_set(self.username, password)
            if self.tls:
                client.tls_set(self.ca_file or None)
        except (OSError, ValueError) as error:
            raise InvalidInput("bad_broker", f"a file for the broker cannot be read: {error}") from error
        client.max_queued_messages_set(queue)
        client.reconnect_delay_set(min_delay=1, max_delay=60)
        client.on_connect = connected
        client.on_connect_fail = _not_reached
        client.on_disconnect = _lost
        client.connect_async(self.host, self.port)
        return client


def connected(client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
    """Tell the log if the broker does not want us; the client goes on trying."""
    if reason.is_failure:
        log.warning("mqtt broker refuses us", host=client.host, reason=str(reason))


def _not_reached(client: Client, _data: Any) -> None:
    log.warning("mqtt broker not reached", host=client.host, port=client.port)


def _lost(client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
    if reason.is_failure:
        log.warning("mqtt connection lost", host=client.host, reason=str(reason))
