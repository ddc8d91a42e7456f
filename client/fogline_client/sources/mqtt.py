"""Samples from MQTT: a message is what a line of ``json_lines`` is."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from queue import Empty, Full, Queue
from typing import Any

from fogline_client.mqtt import Broker, connected
from fogline_client.sources import _options as options
from fogline_client.sources.base import Sample
from fogline_client.sources.json_lines import sample_of

_LOOK_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Mqtt(Broker):
    """``topic`` may hold wildcards; with ``topic_is_sensor`` its last level names the sensor, if the message does not.

    The broker may come and go: the client connects again and subscribes anew. Up to ``queue`` messages wait, the oldest go
    first. Flaws: ``not_json``, ``bad_sample``, ``overrun``. Raises as :class:`Broker`, and ``invalid_source_option``.
    """

    topic: str
    qos: int = 0
    topic_is_sensor: bool = False
    queue: int = 1024
    flaws: Counter[str] = field(default_factory=Counter, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, low, high in (("port", 1, 65_535), ("qos", 0, 2), ("queue", 1, 1 << 20)):
            options.number(self, name, low=low, high=high, whole=True)
        options.flag(self, "tls")
        options.flag(self, "topic_is_sensor")
        options.text(self, "topic")
        super().__post_init__()

    @property
    def rate_hz(self) -> float:
        """The source waits by itself."""
        return 0.0

    def samples(self, stop: threading.Event | None = None) -> Iterator[Sample]:
        """Until stopped."""
        arrived: Queue[tuple[str, bytes]] = Queue(self.queue)
        client = self.client(queue=1)

        def subscribe(ours: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
            connected(ours, data, flags, reason, properties)
            if not reason.is_failure:
                ours.subscribe(self.topic, qos=self.qos)

        client.on_connect = subscribe
        client.on_message = lambda _client, _data, message: self._keep(arrived, message.topic, bytes(message.payload))
        client.loop_start()
        try:
            while stop is None or not stop.is_set():
                try:
                    topic, payload = arrived.get(timeout=_LOOK_S)
                except Empty:
                    continue
                if (sample := self._sample(topic, payload)) is not None:
                    yield sample
        finally:
            client.disconnect()
            client.loop_stop()

    def _keep(self, arrived: Queue[tuple[str, bytes]], topic: str, payload: bytes) -> None:
        while True:
            try:
                arrived.put_nowait((topic, payload))
                return
            except Full:
                self.flaws["overrun"] += 1
                with suppress(Empty):
                    arrived.get_nowait()

    def _sample(self, topic: str, payload: bytes) -> Sample | None:
        try:
            sample = sample_of(json.loads(payload))
            if self.topic_is_sensor and not sample.sensor:
                return replace(sample, sensor=topic.rpartition("/")[2])
            return sample
        except (TypeError, KeyError):
            self.flaws["bad_sample"] += 1
        except (ValueError, RecursionError):
            self.flaws["not_json"] += 1
        return None


SOURCE = Mqtt
