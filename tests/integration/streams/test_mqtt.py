"""MQTT as source and sink, over a real broker that also goes away and comes back."""

from __future__ import annotations

import json
import threading
import time
from queue import Queue

import numpy as np
import pytest
from artifacts import artifact, example
from mqtt_broker import broker, free_port, guarded_broker
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from fogline_client import Predictor
from fogline_client.sources.base import load_source
from fogline_client.streams.answers import Answer
from fogline_client.streams.pipeline import Limits, Pipeline
from fogline_client.streams.sinks.base import load_sink
from fogline_shared.errors import FoglineError, InvalidInput

ANSWER = Answer(time=1.0, label=0, confidence=1.0, scores=np.ones(1, np.float32), classes=("a",), digest="d")


class Outsider:
    """Somebody else's client."""

    def __init__(self, port, topic="#"):
        self.got, ready = Queue(), threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda _client, _data, message: self.got.put(message.payload)
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert ready.wait(10)

    def say(self, topic, payload):
        self._client.publish(topic, payload, qos=1).wait_for_publish(10)

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


def until(met):
    """A source connects and subscribes in its own time."""
    deadline = time.monotonic() + 20
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def exchange(port, label):
    """A frame goes in, its answer comes out; said until somebody hears it."""
    outsider = Outsider(port, "answers")

    def heard():
        outsider.say("wrist/frame", json.dumps({"x": example(label).tolist(), "t": label}))
        return not outsider.got.empty()

    until(heard)
    answer = json.loads(outsider.got.get())
    assert (answer["time"], answer["label"]) == (label, label)
    outsider.close()


def test_samples_come_and_answers_go_over_a_broker_that_goes_for_a_while(tmp_path):
    (tmp_path / "model.onnx").write_bytes(artifact())
    port = free_port()
    source = load_source("mqtt", {"port": port, "topic": "wrist/+", "topic_is_sensor": True})
    pipeline = Pipeline(
        Predictor.from_file(tmp_path / "model.onnx"),
        sources=[("", source)],
        sinks=[load_sink("mqtt", {"port": port, "topic": "answers"})],
        limits=Limits(when_full="reject"),
    )
    stop = threading.Event()
    running = threading.Thread(target=pipeline.run, args=(stop,))
    told = {"port": port, "topic": "promised", "retain": True}
    with broker(port):
        running.start()
        exchange(port, 1)
        outsider = Outsider(port)
        for payload in ("[", "{}"):
            outsider.say("wrist/frame", payload)
        until(lambda: sum(source.flaws.values()) == 2)
        outsider.close()
        careless, careful = load_sink("mqtt", told | {"qos": 0}).open(), load_sink("mqtt", told | {"queue": 1}).open()
        until(lambda: careless._client.is_connected() and careful._client.is_connected())
    until(lambda: not careless._client.is_connected() and not careful._client.is_connected())
    # What was promised waits for the broker, up to a bound; else it is lost with a code.
    careful.deliver(ANSWER)
    for sink in (careless, careful):
        with pytest.raises(FoglineError) as lost:
            sink.deliver(ANSWER)
        assert lost.value.code == "mqtt_not_sent"
    with broker(port):
        outsider = Outsider(port, "promised")
        assert json.loads(outsider.got.get(timeout=10))["time"] == ANSWER.time
        outsider.close()
        exchange(port, 2)
        for sink in (careless, careful):
            sink.close()
    stop.set()
    running.join(10)
    assert not running.is_alive()
    assert source.flaws == {"not_json": 1, "bad_sample": 1}


def test_a_guarded_broker_takes_who_has_the_password_and_we_take_who_has_the_certificate(tmp_path):
    port = free_port()
    for name, password in (("right", "secret\n"), ("wrong", "guess\n")):
        (tmp_path / name).write_text(password)
    good = {"port": port, "topic": "a", "username": "device", "tls": True, "ca_file": str(tmp_path / "roots.pem")}
    with guarded_broker(port, tmp_path):
        welcome, stranger, plain, distrustful = (
            load_sink("mqtt", good | {"password_file": str(tmp_path / password)} | other).open()
            for password, other in (
                ("right", {}),
                ("wrong", {}),
                ("right", {"tls": False, "ca_file": ""}),
                ("right", {"ca_file": ""}),
            )
        )
        refused = []
        for each in (stranger, plain):
            each._client.on_disconnect = lambda client, *_: refused.append(client)
        distrustful._client.on_connect_fail = lambda client, _data: refused.append(client)
        until(welcome._client.is_connected)
        until(lambda: {stranger._client, plain._client, distrustful._client} <= set(refused))
        connected = [each._client.is_connected() for each in (welcome, stranger, plain, distrustful)]
        for each in (welcome, stranger, plain, distrustful):
            each.close()
    assert connected == [True, False, False, False]


def test_the_topic_names_the_sensor_unless_the_message_does():
    source = load_source("mqtt", {"topic": "s/#", "topic_is_sensor": True})
    assert source._sample("s/gyro", b"[1, 2]").sensor == "gyro"
    assert source._sample("s/gyro", b'{"x": [1], "sensor": "own"}').sensor == "own"


def test_a_source_that_is_not_read_keeps_the_newest_messages():
    source, waiting = load_source("mqtt", {"topic": "s", "queue": 2}), Queue(2)
    for payload in (b"1", b"2", b"3"):
        source._keep(waiting, "s", payload)
    assert [waiting.get()[1], waiting.get()[1]] == [b"2", b"3"]
    assert source.flaws == {"overrun": 1}


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"topic": ""}, "invalid_source_option"),
        ({"topic": "a", "qos": 3}, "invalid_source_option"),
        ({"topic": "a", "port": "many"}, "invalid_source_option"),
        ({"topic": "a", "topic_is_sensor": "perhaps"}, "invalid_source_option"),
        ({"topic": 3}, "invalid_source_option"),
        ({"topic": "a", "username": 3}, "bad_broker"),
        ({"topic": "a", "host": ""}, "bad_broker"),
        ({"topic": "a", "ca_file": "roots.pem"}, "bad_broker"),
        ({"topic": "a", "tls": True, "ca_file": "/nowhere/roots.pem"}, "bad_broker"),
        ({"topic": "a", "username": "me", "password_file": "/nowhere/password"}, "bad_broker"),
        ({}, "invalid_source_option"),
    ],
)
def test_mistakes_are_named(options, code):
    with pytest.raises(InvalidInput) as refused:
        next(load_source("mqtt", options).samples(threading.Event()))
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"topic": "a/#"}, "invalid_pipeline"),
        ({"topic": "a", "retain": "no"}, "invalid_pipeline"),
        ({"topic": "a", "port": 0}, "bad_broker"),
        ({"topic": "a", "tls": "no"}, "bad_broker"),
    ],
)
def test_mistakes_of_a_sink_are_named(options, code):
    with pytest.raises(InvalidInput) as refused:
        load_sink("mqtt", options)
    assert refused.value.code == code
