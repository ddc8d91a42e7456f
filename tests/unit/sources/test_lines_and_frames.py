"""Sources that read bytes: JSON lines and sensor arrays, from files, FIFOs, sockets and terminal devices."""

from __future__ import annotations

import binascii
import json
import os
import pty
import socket
import struct
import threading
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fogline_client.sources.base import load_source
from fogline_shared.errors import FoglineError, InvalidInput

FRAME = struct.Struct("<Ihhh")
SYNC = bytes.fromhex("aa55")


def read(kind, **options):
    """All samples of a source that ends, as (sensor, time, values), and its flaws."""
    source = load_source(kind, options)
    samples = [(s.sensor, s.time, s.x.reshape(-1).tolist()) for s in source.samples()]
    return samples, dict(source.flaws)


def frame(tick, *values):
    payload = FRAME.pack(tick, *values)
    return SYNC + payload + binascii.crc_hqx(payload, 0).to_bytes(2, "little")


def array(path, **more):
    """Options of the sensor array that sends :func:`frame`."""
    told = {"format": "binary", "struct": FRAME.format, "sync": SYNC.hex(), "checksum": "crc16"}
    return told | {"path": path, "time_field": 0, "time_scale": 0.001, "scale": 0.5} | more


def test_json_lines_are_samples_and_what_is_none_is_counted(tmp_path):
    lines = [
        '{"x": [1, 2], "t": 0.5, "sensor": "a"}',
        '{"x": 3}',
        "",
        "not json",
        "[" * 100_000,
        '{"t": 1}',
        '{"x": "text"}',
        '{"x": [1], "t": "now"}',
        '{"x": [[1], [2, 3]]}',
        "[1, 2]",
        "7",
        '{"x": [' + "1," * 100_000 + "1]}",
        '{"x": [NaN], "t": 2}',
    ]
    (tmp_path / "in").write_text("\n".join(lines))
    samples, flaws = read("json_lines", path=tmp_path / "in", max_bytes=150_000)
    assert samples[:3] == [("a", 0.5, [1, 2]), ("", None, [3]), ("", None, [1, 2])]
    assert np.isnan(samples[3][2])
    assert len(samples) == 4
    assert flaws == {"not_json": 2, "bad_sample": 5, "too_long": 1}


def test_a_fifo_outlasts_its_writers_and_ends_when_told(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    stop, got = threading.Event(), []
    source = load_source("json_lines", {"path": tmp_path / "fifo"})

    def take():
        for sample in source.samples(stop):
            got.append(float(sample.x[0]))
            if len(got) == 2:
                stop.set()

    reader = threading.Thread(target=take)
    reader.start()
    for value in (1, 2):
        with (tmp_path / "fifo").open("w") as writer:
            writer.write(json.dumps({"x": [value]}) + "\n")
        while len(got) < value:
            time.sleep(0.001)
    reader.join(10)
    assert got == [1, 2]


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_socket_is_read_until_its_end(tmp_path, kind):
    family, address = (socket.AF_INET, ("127.0.0.1", 0)) if kind == "tcp" else (socket.AF_UNIX, str(tmp_path / "s"))
    with socket.socket(family) as server:
        server.bind(address)
        server.listen()
        place = f"tcp://127.0.0.1:{server.getsockname()[1]}" if kind == "tcp" else f"unix:{tmp_path / 's'}"

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"12.5, 1.0; 2.0\n13.0 3.0 oops\n13.5\t3.0 4.0")

        thread = threading.Thread(target=serve)
        thread.start()
        samples, flaws = read("sensor_array", path=place, fields=3, time_field=0)
        thread.join(10)
    assert samples == [("", 12.5, [1, 2]), ("", 13.5, [3, 4])]
    assert flaws == {"bad_line": 1}


def test_a_terminal_device_is_read_byte_by_byte_as_they_are():
    """Bytes that a terminal would take for line ends and control characters, at the baud rate that was asked for."""
    master, slave = pty.openpty()
    stop = threading.Event()
    source = load_source("sensor_array", array(os.ttyname(slave), baud=115200))
    got = []

    def take():
        for sample in source.samples(stop):
            got.append((sample.time, sample.x.tolist()))
            if len(got) == 2:
                stop.set()

    reader = threading.Thread(target=take)
    reader.start()
    sent = time.monotonic()
    while not got and time.monotonic() - sent < 10:  # what comes before the device is in raw mode is mangled
        os.write(master, frame(1000, 3, 4, 13))
        time.sleep(0.02)
    os.write(master, frame(1000, 3, 4, 13))
    reader.join(10)
    os.close(master)
    os.close(slave)
    assert got == [(1.0, [1.5, 2.0, 6.5])] * 2


def test_a_cable_that_is_pulled_out_is_told():
    master, slave = pty.openpty()
    source = load_source("sensor_array", array(os.ttyname(slave)))
    threading.Timer(0.1, lambda: os.close(master)).start()
    with pytest.raises(FoglineError) as lost:
        list(source.samples())
    os.close(slave)
    assert lost.value.code == "source_lost"


noise = st.binary(max_size=40)
ticks = st.tuples(st.integers(0, 2**32 - 1), *[st.integers(-(2**15), 2**15 - 1)] * 3)


@given(parts=st.lists(st.tuples(noise, ticks), max_size=6), tail=noise)
@example(parts=[(SYNC, (1, 2, 3, 4)), (SYNC + b"\x00" * 3, (2, 2, 3, 4))], tail=SYNC)
@settings(max_examples=60, deadline=None)
def test_after_any_garbage_every_whole_frame_is_found_again(tmp_path_factory, parts, tail):
    path = tmp_path_factory.getbasetemp() / "garbage"
    path.write_bytes(b"".join(garbage + frame(*tick) for garbage, tick in parts) + tail)
    samples, flaws = read("sensor_array", **array(path))
    expected = [("", tick[0] * 0.001, [value * 0.5 for value in tick[1:]]) for _, tick in parts]
    # A frame that garbage happens to hold, or that it hides by looking like the start of one, is as likely as 1 : 65536.
    assert samples == expected
    assert set(flaws) <= {"garbage", "bad_checksum"}
    if not any(garbage for garbage, _ in parts) and not tail:
        assert not flaws


@pytest.mark.parametrize(("checksum", "last"), [("sum8", 0x01), ("xor8", 0xE1), ("none", None)])
def test_the_other_checksums(tmp_path, checksum, last):
    good = SYNC + bytes([1, 0xF0, 0x10]) + (b"" if last is None else bytes([last]))
    bad = b"" if last is None else good[:-1] + bytes([last ^ 1])
    (tmp_path / "in").write_bytes(good + b"noise" + bad + good)
    told = {"path": tmp_path / "in", "format": "binary", "struct": "BBb", "sync": "AA 55", "checksum": checksum}
    samples, flaws = read("sensor_array", **told)
    assert [x for _, _, x in samples] == [[1, 0xF0, 16]] * 2
    assert flaws == {"garbage": 1} | ({"bad_checksum": 1} if bad else {})


@pytest.mark.parametrize(
    "wrong",
    [
        {"format": "xml"},
        {"checksum": "md5"},
        {"struct": "<Iq?x$"},
        {"struct": "3s"},
        {"struct": ""},
        {"sync": ""},
        {"sync": "no"},
        {"time_field": 4},
        {"time_field": -2},
        {"scale": "much"},
        {"fields": 1.5},
        {"colour": "red"},
    ],
)
def test_a_wrong_option_of_a_sensor_array_is_named(wrong):
    with pytest.raises(InvalidInput) as refused:
        load_source("sensor_array", array("x", **wrong))
    assert refused.value.code == "invalid_source_option"


def test_lines_need_to_say_how_many_numbers_they_have():
    for options in ({}, {"fields": 1, "time_field": 0}):
        with pytest.raises(InvalidInput):
            load_source("sensor_array", {"path": "x", **options})


@pytest.mark.parametrize("path", ["nowhere", "tcp://127.0.0.1:1", "tcp://127.0.0.1:port", "unix:nowhere", "/"])
def test_a_place_that_cannot_be_read_is_named(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FoglineError) as refused:
        list(load_source("json_lines", {"path": path}).samples())
    assert refused.value.code in {"source_not_readable", "source_lost"}


def test_no_such_speed_of_a_terminal_device():
    master, slave = pty.openpty()
    with pytest.raises(InvalidInput, match="12345 baud"):
        list(load_source("sensor_array", {"path": os.ttyname(slave), "fields": 1, "baud": 12345}).samples())
    os.close(master)
    os.close(slave)
