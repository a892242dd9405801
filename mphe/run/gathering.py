"""Waiting for the clients before the first round after a restart."""

from collections.abc import Iterable

from mphe.roles.step import Step
from mphe.run.party import Waiting


class Gathering:
    """Before the first round after a restart: a server that waits until its clients are back."""

    step = ("gathering",)

    def __init__(self, server: Waiting, clients: Iterable[int]) -> None:
        self._server = server
        self._waiting = set(clients)

    def receive(self, sender: int, data: bytes) -> Step:
        """Let the server take the message; who speaks is back."""
        step = self._server.receive(sender, data)
        self._waiting.discard(sender)
        return step

    def lost(self, *peers: int) -> Step:
        """Go on waiting: they may come back."""
        return self._server.lost(*peers)

    def deadline_passed(self) -> Step:
        """Go on with who is there."""
        self._waiting.clear()
        return Step()

    def waiting_for(self) -> tuple[int, ...]:
        """Return who has not come back."""
        return tuple(sorted(self._waiting))
