"""What a cohort can have, against noise that is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from fogline_server.training.privacy.planning import devices_for, outlook
from fogline_shared.errors import InvalidInput
from fogline_shared.privacy.accountant import Releases, epsilon
from fogline_shared.privacy.local import Local

ASKED = {"parameters": 4000, "rounds": 30, "target": 8.0, "delta": 1e-5}


def test_the_ratio_is_that_of_noise_drawn_in_the_mean_to_its_longest_update() -> None:
    seen = outlook(devices=50, **ASKED)
    clip, rng = 0.7, np.random.default_rng(3)
    noise = rng.normal(0, seen.noise_multiplier * clip, (200, ASKED["parameters"])) / seen.devices
    assert noise.std() == pytest.approx(seen.per_value * clip, rel=0.01)
    assert np.linalg.norm(noise, axis=1).mean() / clip == pytest.approx(seen.noise_to_update, rel=0.01)


def test_the_noise_stays_within_its_budget_whatever_the_cohort() -> None:
    few, many = outlook(devices=5, **ASKED), outlook(devices=5000, **ASKED)
    assert few.noise_multiplier == many.noise_multiplier
    assert few.noise_to_update == pytest.approx(1000 * many.noise_to_update)
    spent = [Releases(noise_multiplier=few.noise_multiplier, rounds=ASKED["rounds"])]
    assert epsilon(spent, ASKED["delta"]) <= ASKED["target"]


def test_with_local_noise_the_ratio_is_that_of_the_devices_own_noise_in_their_mean() -> None:
    seen, values = outlook(devices=50, **ASKED, local=True), ASKED["parameters"]
    local, sent = Local(clip=0.7, noise_multiplier=seen.noise_multiplier), {"w": np.zeros(values)}
    mean = sum(local.protect(sent, sent, bytes([device])).arrays["w"] for device in range(50)) / 50
    assert np.linalg.norm(mean) / local.clip == pytest.approx(seen.noise_to_update, rel=0.05)


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("ratio", [0.1, 1.0])
def test_the_number_of_devices_for_a_ratio_is_the_smallest(ratio: float, *, local: bool) -> None:
    noise = outlook(devices=1, **ASKED).noise_multiplier
    enough = devices_for(ratio, parameters=ASKED["parameters"], noise_multiplier=noise, local=local)
    assert outlook(devices=enough, **ASKED, local=local).noise_to_update <= ratio * (1 + 1e-9)
    assert outlook(devices=enough - 1, **ASKED, local=local).noise_to_update > ratio


@pytest.mark.parametrize("field", ["devices", "parameters"])
def test_a_cohort_or_a_model_of_nothing_is_refused(field: str) -> None:
    with pytest.raises(InvalidInput, match=f"{field} must be an integer from 1 to") as refused:
        outlook(**{"devices": 10, **ASKED, field: 0})
    assert refused.value.code == "invalid_privacy"
