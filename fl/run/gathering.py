"""Waiting for the clients before the first round after a restart."""

from collections.abc import Iterable

from fl.run.driver import Role
from mphe.roles.machine import Output
from mphe.wire.messages import Join, Message, Ready


class Gathering:
    """Before the first round after a restart: waits until the clients have come back."""

    def __init__(self, aggregator: Role, clients: Iterable[int]) -> None:
        self._aggregator = aggregator
        self._waiting = set(clients)
        self.step = ("gathering",)

    def receive(self, sender: int, message: Message) -> list[Output]:
        """Let the aggregator take the message; who speaks is back."""
        outputs = self._aggregator.receive(sender, message)
        if isinstance(message, Join | Ready):
            self._waiting.discard(sender)
        return outputs

    def lost(self, *peers: int) -> list[Output]:
        """Go on waiting: they may come back."""
        return self._aggregator.lost(*peers)

    def deadline_passed(self) -> list[Output]:
        """Go on with who is there."""
        self._waiting.clear()
        return []

    def waiting_for(self) -> tuple[int, ...]:
        """Return who has not come back."""
        return tuple(sorted(self._waiting))
