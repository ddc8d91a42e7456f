"""What each attack sends in place of an honest update, and who attacks."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_recipe import signals

from fogline_server.simulation.attacks import Attack, is_attacker
from fogline_server.simulation.choices import chance

RNG = np.random.default_rng(0)
SENT = {"a": RNG.normal(size=(4, 5)).astype(np.float32), "b": RNG.normal(size=3).astype(np.float32)}
TRAINED = {name: (array + RNG.normal(0, 0.1, array.shape)).astype(np.float32) for name, array in SENT.items()}


def moved(update: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([(update[name].astype(np.float64) - SENT[name]).ravel() for name in SENT])


def attacked(text: str) -> dict[str, np.ndarray]:
    update = Attack.parse(text).update(SENT, TRAINED, chance(0, "attack", 1))
    assert {name: (a.dtype, a.shape) for name, a in update.items()} == {n: (a.dtype, a.shape) for n, a in SENT.items()}
    return update


def test_sign_flip_goes_the_other_way() -> None:
    assert moved(attacked("sign_flip")) == pytest.approx(-moved(TRAINED), abs=1e-6)
    assert moved(attacked("sign_flip:10")) == pytest.approx(-10 * moved(TRAINED), abs=1e-5)


def test_gaussian_noise_is_as_long_as_was_asked_for_and_repeats() -> None:
    noise = moved(attacked("gaussian:3"))
    assert np.linalg.norm(noise) == pytest.approx(3 * np.linalg.norm(moved(TRAINED)), rel=1e-4)
    assert abs(np.corrcoef(noise, moved(TRAINED))[0, 1]) < 0.7
    assert (noise == moved(attacked("gaussian:3"))).all()


def test_nan_is_nan_everywhere() -> None:
    assert np.isnan(moved(attacked("nan"))).all()


def test_label_flip_lies_about_labels_and_trains_honestly() -> None:
    flip, honest = Attack.parse("label_flip"), signals(0, 16)
    assert (flip.data(honest, 4).y == 3 - honest.y).all()
    assert (flip.data(honest, 4).x == honest.x).all()
    assert (moved(attacked("label_flip")) == moved(TRAINED)).all()


def test_only_a_free_rider_saves_itself_the_training() -> None:
    assert [
        name for name in ("sign_flip", "gaussian", "label_flip", "nan", "free_rider") if not Attack.parse(name).trains
    ] == ["free_rider"]


@pytest.mark.parametrize("seed", [0, 1, 2, 123_456_789])
@pytest.mark.parametrize(("devices", "share", "count"), [(1, 1.0, 1), (10, 0.2, 2), (997, 0.4, 399), (1000, 0.25, 250)])
def test_exactly_the_share_attacks(devices: int, share: float, count: int, seed: int) -> None:
    bad = [device for device in range(devices) if is_attacker(device, devices=devices, share=share, seed=seed)]
    assert len(bad) == count


def test_other_seeds_have_other_attackers() -> None:
    fleets = {
        tuple(device for device in range(100) if is_attacker(device, devices=100, share=0.2, seed=seed))
        for seed in range(10)
    }
    assert len(fleets) > 5
