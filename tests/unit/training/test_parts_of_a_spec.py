"""What a run or a release is asked for is made of objects: what is no object, or has a field too many, is named."""

from __future__ import annotations

import pytest

from fogline_server.distillation.teaching import Teaching
from fogline_server.registry.limits import ReleaseLimits
from fogline_server.training.ensemble.spec import Ensemble
from fogline_server.training.gate import Gate
from fogline_server.training.pacing import Pacing
from fogline_server.training.privacy.local import LocalPrivacy
from fogline_server.training.privacy.spec import Privacy
from fogline_shared.errors import InvalidInput


@pytest.mark.parametrize(
    ("part", "name", "code"),
    [
        (Teaching, "teaching", "invalid_teaching"),
        (Ensemble, "ensemble", "invalid_ensemble"),
        (Privacy, "privacy", "invalid_privacy"),
        (LocalPrivacy, "local_privacy", "invalid_privacy"),
        (ReleaseLimits, "limits", "invalid_release_limits"),
        (Pacing, "pacing", "invalid_run"),
        (Gate, "gate", "invalid_run"),
    ],
)
def test_what_is_no_object_or_has_a_field_too_many_is_named(part, name: str, code: str) -> None:
    assert part.from_json({}) == part()
    for wrong, field, says in (
        ([], name, f"{name} is an object"),
        (None, name, f"{name} is an object"),
        ({"warmth": 2}, f"{name}.warmth", f"{name} has no field 'warmth'; fields: "),
        ({"x" * 10_000: 1}, f"{name}.{'x' * 10_000}"[:100], f"{name} has no field"),
    ):
        with pytest.raises(InvalidInput, match=says) as refused:
            part.from_json(wrong)
        assert (refused.value.code, refused.value.detail["field"]) == (code, field)
        assert len(refused.value.message) <= 400
