"""What each attack sends in place of an honest update, and who attacks."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_recipe import signals

from fogline_server.simulation.attacks import ATTACKS, TARGET, Attack, Sent, is_attacker, stamp
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


@pytest.mark.parametrize(("name", "test"), [("nan", np.isnan), ("inf", np.isposinf)])
def test_values_that_are_no_numbers_are_everywhere(name: str, test) -> None:
    assert all(test(array).all() for array in attacked(name).values())


def honest(count: int) -> np.ndarray:
    return np.random.default_rng(4).normal(size=(count, 23)) + 2.0


def agreed(text: str, updates: np.ndarray, attackers: int) -> np.ndarray:
    arrays = [{"a": SENT["a"] + u[:20].reshape(4, 5), "b": SENT["b"] + u[20:]} for u in updates]
    attack = Attack.parse(text)
    assert attack.colludes
    return moved(attack.agreed(Sent.of(SENT, iter(arrays), attackers)))


def test_alie_hides_in_the_spread_of_the_honest() -> None:
    updates = honest(12)
    expected = updates.mean(axis=0) - 1.5 * updates.std(axis=0)
    assert agreed("alie:1.5", updates, 8) == pytest.approx(expected, abs=1e-5)
    # The paper's own: 3 of 12 honest ones make a majority of 20 with 8 attackers, so 9 of 12 lie nearer.
    expected = updates.mean(axis=0) - 0.67449 * updates.std(axis=0)
    assert agreed("alie", updates, 8) == pytest.approx(expected, abs=1e-4)


def test_ipm_turns_the_mean_around() -> None:
    updates = honest(9)
    assert agreed("ipm", updates, 2) == pytest.approx(-0.5 * updates.mean(axis=0), abs=1e-5)
    assert agreed("ipm:3", updates, 2) == pytest.approx(-3 * updates.mean(axis=0), abs=1e-5)


def test_attackers_among_themselves_do_not_move() -> None:
    assert agreed("ipm", honest(0), 2) == pytest.approx(np.zeros(23))


def test_backdoor_marks_every_other_example_and_calls_it_the_target() -> None:
    own = signals(0, 16)
    bad = Attack.parse("backdoor").data(own, 4)
    marked = stamp(own.x)
    assert (marked[:, 0, -8:] == own.x.max()).all()
    assert (marked[:, 0, :-8] == own.x[:, 0, :-8]).all()
    assert (marked[:, 1:] == own.x[:, 1:]).all()
    assert (bad.x[::2] == marked[::2]).all()
    assert (bad.y[::2] == TARGET).all()
    assert (bad.x[1::2] == own.x[1::2]).all()
    assert (bad.y[1::2] == own.y[1::2]).all()
    assert (moved(attacked("backdoor")) == moved(TRAINED)).all(), "it trains honestly on what it has made up"


def test_model_replacement_is_a_backdoor_that_goes_farther() -> None:
    own = signals(0, 16)
    assert (Attack.parse("model_replacement").data(own, 4).y == Attack.parse("backdoor").data(own, 4).y).all()
    assert moved(attacked("model_replacement")) == pytest.approx(10 * moved(TRAINED), abs=1e-5)
    assert [name for name, kind in ATTACKS.items() if kind.trigger] == ["backdoor", "model_replacement"]


def test_label_flip_lies_about_labels_and_trains_honestly() -> None:
    flip, honest = Attack.parse("label_flip"), signals(0, 16)
    assert (flip.data(honest, 4).y == 3 - honest.y).all()
    assert (flip.data(honest, 4).x == honest.x).all()
    assert (moved(attacked("label_flip")) == moved(TRAINED)).all()


def test_only_a_free_rider_saves_itself_the_training() -> None:
    assert [name for name in ATTACKS if not Attack.parse(name).trains] == ["free_rider"]


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
