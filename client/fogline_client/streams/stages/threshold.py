"""No answer rather than a doubtful one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fogline_client.streams.answers import ABSTAINED, Answer
from fogline_client.streams.checks import flag
from fogline_client.streams.stages.base import Step
from fogline_shared.checks import number


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Abstain below ``confidence``; with ``silent`` the sinks do not see such answers at all."""

    confidence: float
    silent: bool = False

    def __post_init__(self) -> None:
        number("confidence", self.confidence, low=0, high=1, code="invalid_pipeline")
        flag("silent", self.silent)

    def start(self) -> Step:
        """Nothing is remembered."""
        return self._judged

    def _judged(self, answer: Answer) -> Answer | None:
        if answer.confidence >= self.confidence:
            return answer
        return None if self.silent else replace(answer, label=ABSTAINED)


STAGE = Threshold
