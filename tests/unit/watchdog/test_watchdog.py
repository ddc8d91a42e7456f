"""A model that does harm in service steps down by itself, whoever asks gets an answer, and a sound one stays."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import poisoned
import pytest
from artifacts import artifact, example

from fogline_client.inference.predictor import Predictor
from fogline_client.watchdog.alarm import Alarm
from fogline_client.watchdog.limits import WatchdogLimits
from fogline_client.watchdog.watchdog import Watchdog
from fogline_shared.errors import Corrupt

LIMITS = WatchdogLimits(hang_s=0.2, slower_ms=1, sample=16)


class Device:
    """A predictor with a sound model, and a watchdog."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.predictor = Predictor()
        self.watchdog = Watchdog(self.predictor, LIMITS)
        self.alarms: list[Alarm] = []
        self.rang = threading.Event()
        self.watchdog.rang = self.hear
        self.sound = self.load(artifact())
        self.predictor.swap(self.sound)

    def hear(self, alarm: Alarm) -> None:
        self.alarms.append(alarm)
        self.rang.set()

    def load(self, content: bytes):
        path = self.folder / "model.onnx"
        path.write_bytes(content)
        return self.predictor.load(path)

    def take(self, content: bytes, *, alone: bool = False, compare: bool = True) -> str:
        """Swap to it as an update does; the digest."""
        model = self.load(content)
        self.watchdog.begin(model, None if alone else self.sound, compare=compare)
        self.predictor.swap(model)
        return model.digest

    def ask(self, times: int, *, kinds: int = 3) -> list[int]:
        return [self.predictor.predict(example(i % kinds)).label for i in range(times)]

    def code(self) -> str:
        assert self.rang.wait(20)
        return self.alarms[0].code


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    device = Device(tmp_path)
    yield device
    device.watchdog.end()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (poisoned.not_finite, "model_not_finite"),
        (poisoned.one_class, "model_one_class"),
        (poisoned.unsure, "model_unsure"),
        (poisoned.slow, "model_slow"),
    ],
)
def test_a_poisoned_model_steps_down(device: Device, content, code: str) -> None:
    poison = device.take(content())
    device.ask(LIMITS.sample)
    assert device.code() == code
    assert [alarm.digest for alarm in device.alarms] == [poison]
    assert device.predictor.active_digest == device.sound.digest
    assert device.ask(3) == [0, 1, 2]


def test_what_it_does_not_answer_the_model_before_answers(device: Device) -> None:
    device.take(poisoned.not_finite())
    answers = [device.predictor.predict(example(i % 3)) for i in range(10)]
    assert [answer.label for answer in answers] == [i % 3 for i in range(10)]
    assert {answer.digest for answer in answers} == {device.sound.digest}
    many = device.predictor.predict_many(np.stack([example(2), example(0)]))
    assert [answer.label for answer in many] == [2, 0]


def test_a_call_that_hangs_is_ended_and_answered_while_others_go_on(device: Device) -> None:
    device.take(poisoned.hanging())
    assert device.ask(3) == [0, 1, 2]
    answers: list[int] = []
    callers = [
        threading.Thread(target=lambda: answers.append(device.predictor.predict(poisoned.marked(2)).label), daemon=True)
        for _ in range(2)
    ]
    for caller in callers:
        caller.start()
    assert device.ask(3) == [0, 1, 2]
    assert device.code() == "model_hangs"
    for caller in callers:
        caller.join(20)
    assert answers == [2, 2]
    assert device.ask(3) == [0, 1, 2]


def test_an_input_that_no_model_answers_is_not_the_new_ones_fault(device: Device) -> None:
    device.sound = device.load(poisoned.not_finite())
    device.take(poisoned.not_finite())
    for _ in range(10):
        with pytest.raises(Corrupt) as caught:
            device.predictor.predict(example(0))
        assert caught.value.code == "output_not_finite"
    device.take(poisoned.not_finite(), alone=True)
    for _ in range(3):
        with pytest.raises(Corrupt):
            device.predictor.predict(example(0))
    assert device.code() == "model_not_finite"
    assert (len(device.alarms), device.predictor.active_digest) == (1, "")


@pytest.mark.parametrize(
    ("content", "kinds"),
    [
        (artifact(scale=3.0), 3),  # less sure
        (artifact(shift=1), 3),  # other answers
        (artifact(scale=4.0), 1),  # one answer to inputs that are all of one kind
        (poisoned.one_class(), 1),
    ],
    ids=["less sure", "different", "monotonous input", "one class of one"],
)
def test_a_sound_model_stays(device: Device, content: bytes, kinds: int) -> None:
    digest = device.take(content)
    compared = threading.Event()
    watch = device.watchdog._watch
    original, watch._try_both = watch._try_both, lambda inputs: (original(inputs), compared.set())
    busy = [threading.Thread(target=device.ask, args=(300,), kwargs={"kinds": kinds}) for _ in range(3)]
    for thread in busy:
        thread.start()
    device.ask(300, kinds=kinds)
    for thread in busy:
        thread.join()
    assert compared.wait(20)
    assert device.alarms == []
    assert device.predictor.active_digest == digest


def test_a_model_that_the_coordinator_went_back_to_is_not_compared(device: Device) -> None:
    digest = device.take(poisoned.unsure(), compare=False)
    device.ask(100)
    assert not device.rang.wait(0.5)
    assert device.predictor.active_digest == digest


def test_no_alarm_comes_after_the_end(device: Device) -> None:
    digest = device.take(poisoned.not_finite())
    device.watchdog.end()
    for _ in range(5):
        with pytest.raises(Corrupt):
            device.predictor.predict(example(0))
    assert not device.rang.wait(0.2)
    assert device.predictor.active_digest == digest
