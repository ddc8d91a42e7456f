"""Answers to an MQTT topic, as JSON."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fogline_client.mqtt import Broker
from fogline_client.streams.answers import Answer
from fogline_client.streams.checks import flag
from fogline_shared.checks import number
from fogline_shared.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessageInfo

_LAST_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Mqtt(Broker):
    """With ``qos`` 1 or 2 up to ``queue`` answers wait for a broker that is away; with 0 they are lost, and counted.

    ``retain``: the broker keeps the last one for whoever comes later. Raises as :class:`Broker`, and ``invalid_pipeline``.
    """

    topic: str
    qos: int = 1
    retain: bool = False
    queue: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        number("qos", self.qos, low=0, high=2, whole=True, code="invalid_pipeline")
        number("queue", self.queue, low=1, high=1 << 20, whole=True, code="invalid_pipeline")
        flag("retain", self.retain)
        if not self.topic or not isinstance(self.topic, str) or {"#", "+"} & set(self.topic):
            raise InvalidInput("invalid_pipeline", f"topic has no wildcards, got {self.topic!r}", field="topic")

    def open(self) -> OpenMqtt:
        """The connection is made in the background: a broker may be away at first."""
        client = self.client(queue=self.queue)
        client.loop_start()
        return OpenMqtt(self, client)


class OpenMqtt:
    """An OpenSink."""

    def __init__(self, options: Mqtt, client: Client) -> None:
        self._options = options
        self._client = client
        self._last: MQTTMessageInfo | None = None

    def deliver(self, answer: Answer) -> None:
        """Hand it to the client; raise Unavailable ``mqtt_not_sent`` when it cannot keep it either."""
        from paho.mqtt.enums import MQTTErrorCode

        told = self._client.publish(
            self._options.topic, json.dumps(answer.facts()), qos=self._options.qos, retain=self._options.retain
        )
        kept = told.rc == MQTTErrorCode.MQTT_ERR_NO_CONN and self._options.qos > 0
        if told.rc != MQTTErrorCode.MQTT_ERR_SUCCESS and not kept:
            raise Unavailable("mqtt_not_sent", f"the broker is away: {told.rc.name}")
        self._last = told

    def close(self) -> None:
        """Give what waits a moment, then disconnect."""
        if self._last is not None:
            with suppress(RuntimeError, ValueError):
                self._last.wait_for_publish(_LAST_S)
        self._client.disconnect()
        self._client.loop_stop()


SINK = Mqtt
