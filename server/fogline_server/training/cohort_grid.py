"""What our grids share: Flower's interface over a cohort that is known beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from flwr.serverapp import Grid

from fogline_shared import flower
from fogline_shared.flower import Address, Message, RecordDict


class CohortGrid(Grid):
    """A grid whose nodes are exactly the cohort of one phase of one round, in an order that the next run has too.

    Strategies use :meth:`get_node_ids` and :meth:`send_and_receive`; the two halves of the latter are there for
    Flower's own sake. ``set_run`` and ``run`` describe a SuperLink's run, which ours are not.
    """

    def __init__(self, nodes: Sequence[int]) -> None:
        self._nodes = tuple(nodes)

    def set_run(self, run: Any) -> None:
        """Flower's servers call it before an app starts; a cohort has its run already."""

    @property
    def run(self) -> Any:
        """Unknown to us: no strategy asks."""
        raise NotImplementedError("a cohort grid is not a SuperLink run")

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node; phases have deadlines of their own, so ``ttl`` is not used."""
        del ttl
        address = Address(message_id="", node_id=dst_node_id, group_id=group_id, message_type=message_type)
        return flower.instruction(content, address)

    def get_node_ids(self) -> Iterable[int]:
        """The cohort."""
        return self._nodes
