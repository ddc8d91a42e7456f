"""The ring file: bounded, and whole records after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fogline_client.streams.answers import Answer
from fogline_client.streams.sinks.ring import Ring, read_ring
from fogline_shared.errors import FoglineError


def answer(i: int) -> Answer:
    scores = np.array([0.25, 0.75], dtype=np.float32)
    return Answer(time=float(i), label=1, confidence=0.75, scores=scores, classes=("off", "on"), digest="d" * 64)


def kept(path):
    return [record["time"] for record in read_ring(path)]


def write(ring, numbers):
    sink = ring.open()
    for i in numbers:
        sink.deliver(answer(i))
    sink.close()


def test_it_keeps_the_last_answers_in_a_file_that_does_not_grow(tmp_path):
    ring = Ring(path=tmp_path / "ring", slots=5, slot_bytes=512)
    write(ring, range(3))
    assert kept(ring.path) == [0, 1, 2]
    size = ring.path.stat().st_size
    write(ring, range(3, 13))
    assert kept(ring.path) == [8, 9, 10, 11, 12]
    assert ring.path.stat().st_size == size == 6 * 512
    assert read_ring(ring.path)[-1] == json.loads(json.dumps(answer(12).facts()))


@pytest.mark.parametrize("cut", range(0, 300, 23))
def test_a_record_that_was_half_written_is_left_out_and_the_others_stand(tmp_path, cut):
    """Every kind of torn write: the slot's first bytes are the new record's, the others the old one's."""
    ring = Ring(path=tmp_path / "ring", slots=3, slot_bytes=512)
    write(ring, range(3))
    before = ring.path.read_bytes()
    write(ring, [3])
    after = ring.path.read_bytes()
    at = next(
        slot * 512
        for slot in range(1, 4)
        if before[slot * 512 : slot * 512 + 512] != after[slot * 512 : slot * 512 + 512]
    )
    ring.path.write_bytes(before[:at] + after[at : at + cut] + before[at + cut :])
    # The first record is the oldest: it is there still, or replaced, or lost to the tear.
    assert kept(ring.path) in ([1, 2], [0, 1, 2], [1, 2, 3])
    write(ring, [4, 5])
    assert kept(ring.path)[-2:] == [4, 5]


def test_a_writer_that_is_killed_leaves_all_that_it_delivered(tmp_path):
    path = tmp_path / "ring"
    code = (
        "import sys, test_ring\n"
        "from fogline_client.streams.sinks.ring import Ring\n"
        "sink = Ring(path=sys.argv[1], slots=64, slot_bytes=512).open()\n"
        "for i in range(10**9):\n"
        "    sink.deliver(test_ring.answer(i))\n"
        "    print(i, flush=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    writer = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True, env=environment)
    told = [int(next(writer.stdout)) for _ in range(200)]
    writer.send_signal(signal.SIGKILL)
    told += [int(line) for line in writer.stdout if line.endswith("\n")]
    writer.wait()
    writer.stdout.close()
    times = kept(path)
    # All slots are whole, or one was torn; the last told is the last or next to last.
    assert len(times) in {63, 64}
    assert times == list(range(int(times[0]), int(times[0]) + len(times)))
    assert 0 <= times[-1] - told[-1] <= 1


def test_one_writer_at_a_time_and_readers_at_any(tmp_path):
    ring = Ring(path=tmp_path / "ring", slots=4, slot_bytes=512)
    sink = ring.open()
    sink.deliver(answer(7))
    assert kept(ring.path) == [7]
    with pytest.raises(FoglineError) as refused:
        ring.open()
    assert refused.value.code == "ring_in_use"
    sink.close()
    ring.open().close()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"short", "bad_ring"),
        (b"not a ring at all, but long enough", "bad_ring"),
        (b"FLRING1\n" + bytes(16), "bad_ring"),
    ],
)
def test_a_file_that_is_no_ring_is_left_alone(tmp_path, content, code):
    path = tmp_path / "other"
    path.write_bytes(content)
    for look in (lambda: Ring(path=path).open(), lambda: read_ring(path)):
        with pytest.raises(FoglineError) as refused:
            look()
        assert refused.value.code == code
    assert path.read_bytes() == content


def test_a_writer_that_was_killed_at_its_first_write_does_not_bar_the_next(tmp_path):
    ring = Ring(path=tmp_path / "ring", slots=4, slot_bytes=512)
    ring.open().close()
    ring.path.write_bytes(ring.path.read_bytes()[:16])
    write(ring, [1])
    assert kept(ring.path) == [1]


def test_other_slots_than_the_files_and_other_mistakes_are_named(tmp_path):
    Ring(path=tmp_path / "ring", slots=4, slot_bytes=512).open().close()
    small = Ring(path=tmp_path / "small", slots=4, slot_bytes=64).open()
    for mistake, code in (
        (lambda: Ring(path=tmp_path / "ring", slots=5, slot_bytes=512).open(), "invalid_pipeline"),
        (lambda: Ring(path=tmp_path / "none" / "ring").open(), "invalid_pipeline"),
        (lambda: Ring(path="r", slots=0), "invalid_pipeline"),
        (lambda: read_ring(tmp_path / "none"), "ring_not_readable"),
        (lambda: small.deliver(answer(0)), "record_too_large"),
    ):
        with pytest.raises(FoglineError) as refused:
            mistake()
        assert refused.value.code == code
    small.close()
    assert kept(tmp_path / "small") == []
