"""A grid whose devices live in this process: simulations, studies, tests. No network, no database, no Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from flwr.app import Context

from fogline_server.training.cohort_grid import CohortGrid
from fogline_shared import flower
from fogline_shared.flower import Address, Message, RecordDict

# A Flower ClientApp, called as Flower calls it.
App = Callable[[Message, Context], Message]


class InProcessGrid(CohortGrid):
    """Runs each node's app in turn. ``nodes``: an app and its node configuration by node id.

    Each node keeps its own context over the rounds, as on a device. An app that raises is an error reply.
    """

    def __init__(self, nodes: Mapping[int, tuple[App, Mapping[str, str]]]) -> None:
        super().__init__(sorted(nodes))
        self._apps = {node: app for node, (app, _) in nodes.items()}
        self._contexts = {
            node: Context(run_id=1, node_id=node, node_config=dict(config), state=RecordDict(), run_config={})
            for node, (_, config) in nodes.items()
        }
        self._replies: dict[str, Message] = {}
        self._sent = 0

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Run each message's app now."""
        ids = []
        for message in messages:
            self._sent += 1
            message_id = f"local-{self._sent}"
            self._replies[message_id] = self._answer(message, message_id)
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies, each once."""
        return [self._replies.pop(message_id) for message_id in message_ids if message_id in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """All replies; an app cannot be late, so ``timeout`` is not used."""
        del timeout
        return self.pull_messages(self.push_messages(messages))

    def _answer(self, message: Message, message_id: str) -> Message:
        about = message.metadata
        address = Address(
            message_id=message_id, node_id=about.dst_node_id, group_id=about.group_id, message_type=about.message_type
        )
        try:
            app, context = self._apps[address.node_id], self._contexts[address.node_id]
            return flower.reply(app(flower.instruction(message.content, address), context).content, address)
        except Exception as error:  # an app is somebody else's code
            return flower.reply(flower.failure(flower.DEVICE_FAILED, type(error).__name__, str(error)), address)
