"""What a compression search is asked for: one frozen, validated value. Needs neither torch nor onnx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fogline_server.compression.chain import Chain
from fogline_server.compression.front import Limits
from fogline_server.registry.model import check_name
from fogline_shared.checks import number
from fogline_shared.errors import InvalidInput

MOST_CANDIDATES = 64


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """Which forms of a release's student to try, and within which limits.

    ``name``: the release that the search ends with; None: it only reports. ``chains``: what is tried instead of the
    default space. ``steps``: batches that a method which trains sees in all, unless its chain says otherwise.
    Raises InvalidInput ``invalid_name``, ``invalid_search`` and what Limits and Chain raise.
    """

    name: str | None = None
    limits: Limits = field(default_factory=Limits)
    chains: Sequence[Chain] = ()
    steps: int = 900
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name, what="release name", limit=80)
        if len(self.chains) > MOST_CANDIDATES:
            message = f"a search tries at most {MOST_CANDIDATES} chains, not {len(self.chains)}"
            raise InvalidInput("invalid_search", message, field="chains")
        for name, value, low, high in (("steps", self.steps, 1, 100_000), ("seed", self.seed, 0, 2**31 - 1)):
            number(name, value, low=low, high=high, whole=True, code="invalid_search")

    def as_json(self) -> dict[str, Any]:
        """For the search's row."""
        return {
            "name": self.name,
            "limits": asdict(self.limits),
            "chains": [chain.as_json() for chain in self.chains],
            "steps": self.steps,
            "seed": self.seed,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SearchSpec:
        """Inverse of :meth:`as_json`."""
        return cls(
            name=value["name"],
            limits=Limits(**value["limits"]),
            chains=tuple(Chain.from_json(links) for links in value["chains"]),
            steps=value["steps"],
            seed=value["seed"],
        )
