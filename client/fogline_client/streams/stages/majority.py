"""The label that most of the last answers gave."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, replace

from fogline_client.streams.answers import ABSTAINED, Answer
from fogline_client.streams.stages.base import Step
from fogline_shared.checks import number


@dataclass(frozen=True, kw_only=True)
class Majority:
    """Over the last ``votes`` answers; of labels with equally many, the one given last. Abstentions do not vote.

    ``confidence`` becomes the share of the votes.
    """

    votes: int

    def __post_init__(self) -> None:
        number("votes", self.votes, low=1, high=10_000, whole=True, code="invalid_pipeline")

    def start(self) -> Step:
        """No votes yet."""
        labels: deque[int] = deque(maxlen=self.votes)

        def voted(answer: Answer) -> Answer:
            labels.append(answer.label)
            newest_first = [label for label in reversed(labels) if label != ABSTAINED]
            if not newest_first:
                return replace(answer, label=ABSTAINED)
            # most_common keeps the order of first sight among equals: here, the newest.
            label, count = Counter(newest_first).most_common(1)[0]
            return replace(answer, label=label, confidence=count / len(labels))

        return voted


STAGE = Majority
