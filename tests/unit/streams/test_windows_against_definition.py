"""Windows cut while samples come are those of the definitions, computed over whole recordings."""

from __future__ import annotations

import numpy as np
import plain_windows
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fogline_client.streams.fusion.base import load_fusion
from fogline_client.streams.windows import Fuser, Sensor, Windows

METHODS = ("hold", "linear", "nearest")

# Hundredths of seconds, so that samples meet instants of the grid exactly, now and then.
stamps = st.lists(st.integers(0, 400), min_size=1, max_size=60, unique=True).map(
    lambda ns: [n / 100 for n in sorted(ns)]
)
seconds = st.sampled_from([0.02, 0.05, 0.1, 0.35, 1.0])


@st.composite
def sensors(draw, name):
    return Sensor(
        name=name,
        channels=draw(st.integers(1, 2)),
        fusion=draw(st.sampled_from(METHODS)),
        max_gap_s=draw(seconds),
        hold_s=draw(st.sampled_from([0.0, 0.0, 0.1, 0.5, 3.0])),
    )


def recorded(times, channels, salt):
    """Values that differ everywhere, so that a wrong sample shows."""
    return [(t, [float(np.float32(100 * t + 7 * salt + c)) for c in range(channels)]) for t in times]


def fused(fuser, arrivals):
    frames = []
    for i, (name, time, x) in enumerate(arrivals):
        frames += fuser.add(name, x, time=time, arrived=float(i))
    return frames + fuser.flush()


def assert_as_defined(frames, fuser, spec, described, recordings):
    expected, skipped = plain_windows.windows(
        recordings,
        rate_hz=spec.rate_hz,
        length=spec.length,
        hop=spec.hop,
        fusions={s.name: s.fusion for s in described},
        gaps={s.name: s.max_gap_s for s in described},
        holds={s.name: s.hold_s for s in described},
    )
    assert [frame.time for frame in frames] == [time for time, _ in expected]
    for frame, (_, x) in zip(frames, expected, strict=True):
        np.testing.assert_allclose(frame.x, x, rtol=1e-6, atol=1e-4)
    assert sum(fuser.skipped.values()) == skipped
    assert sum(fuser.dropped.values()) == 0


@pytest.mark.parametrize("method", METHODS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_method_says_at_every_instant_what_its_definition_says(method, data):
    times, gap = data.draw(stamps), data.draw(seconds)
    grid = sorted(data.draw(st.lists(st.integers(0, 4000), min_size=1, max_size=20)))
    samples = recorded(times, 2, 0)
    values, stands = load_fusion(method)(
        np.array(times), np.array([x for _, x in samples], dtype=np.float32), np.array(grid) / 1000, gap
    )
    for i, instant in enumerate(np.array(grid) / 1000):
        expected = plain_windows.value(method, samples, instant, gap)
        assert bool(stands[i]) == (expected is not None)
        if expected is not None:
            np.testing.assert_allclose(values[i], expected, rtol=1e-6, atol=1e-4)


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_windows_of_a_stream_are_those_of_the_whole_recording(data):
    described = [data.draw(sensors(name)) for name in ("a", "b", "c")[: data.draw(st.integers(1, 3))]]
    spec = Windows(
        rate_hz=data.draw(st.sampled_from([10.0, 25.0, 50.0, 30.0])),
        length=data.draw(st.integers(1, 12)),
        hop=data.draw(st.integers(1, 15)),
    )
    recordings = {s.name: recorded(data.draw(stamps), s.channels, i) for i, s in enumerate(described)}
    arrivals = sorted((t, name, x) for name, samples in recordings.items() for t, x in samples)
    fuser = Fuser(spec, described)
    frames = fused(fuser, [(name, t, x) for t, name, x in arrivals])
    assert_as_defined(frames, fuser, spec, described, recordings)


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_samples_out_of_order_within_the_bound_change_nothing(data):
    described = [data.draw(sensors(name)) for name in ("a", "b")]
    spec = Windows(rate_hz=20.0, length=data.draw(st.integers(1, 8)), hop=data.draw(st.integers(1, 8)), reorder_s=0.25)
    recordings = {s.name: recorded(data.draw(stamps), s.channels, i) for i, s in enumerate(described)}
    everything = [(t, name, x) for name, samples in recordings.items() for t, x in samples]
    # On the way for less than the bound, each as long as it likes.
    delays = data.draw(st.lists(st.floats(0, 0.24), min_size=len(everything), max_size=len(everything)))
    arrivals = [item for _, item in sorted(zip(delays, everything, strict=True), key=lambda d: d[0] + d[1][0])]
    fuser = Fuser(spec, described)
    frames = fused(fuser, [(name, t, x) for t, name, x in arrivals])
    assert_as_defined(frames, fuser, spec, described, recordings)


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_whatever_comes_is_counted_and_memory_stays_bounded(data):
    spec = Windows(rate_hz=10.0, length=4, hop=2, reorder_s=0.1, jump_s=0.5, max_samples=8)
    fuser = Fuser(spec, [Sensor(name="a", channels=1), Sensor(name="b", channels=1, fusion="nearest", hold_s=0.2)])
    odd = st.sampled_from([float("nan"), float("inf"), -1e12, 1e12, 0.0])
    times = st.one_of(st.floats(0, 5), odd)
    values = st.one_of(st.just([1.0]), st.just([float("nan")]), st.just([1.0, 2.0]), st.just("text"))
    arrivals = data.draw(st.lists(st.tuples(st.sampled_from("abz"), times, values), max_size=40))
    frames = fused(fuser, arrivals)
    assert all(np.isfinite(frame.x).all() and frame.x.shape == (2, 4) for frame in frames)
    for track in fuser._tracks.values():
        assert track.waiting <= 8
        assert len(track.times) <= 8
