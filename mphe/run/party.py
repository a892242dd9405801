"""What the runtime needs of a party, bytes in and bytes out: what mphe.Client and Server have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from numpy.typing import NDArray

from mphe.roles.step import Step
from mphe.scheme.encryptor import Payload


class Waiting(Protocol):
    """What waits for answers of clients."""

    @property
    def step(self) -> tuple[object, ...]:
        """What is waited for; it changes whenever a new wait begins, its first part is the kind."""

    def receive(self, sender: int, data: bytes) -> Step:
        """Take one message; RemoteProtocolError when it is wrong."""

    def lost(self, *peers: int) -> Step:
        """Go on without peers that vanished together."""

    def deadline_passed(self) -> Step:
        """Go on without those that are late."""

    def waiting_for(self) -> tuple[int, ...]:
        """Return whose answer is missing."""


class ServerParty(Waiting, Protocol):
    """A server."""

    @property
    def members(self) -> set[int]:
        """The clients that may contribute."""

    @property
    def round(self) -> int:
        """The last round that was started; 0 before the first."""

    @property
    def state(self) -> bytes:
        """Everything that it is."""

    @property
    def keeps_sum(self) -> bool:
        """Whether the decryption of a sum has begun, and may still end."""

    def abandon_round(self, reason: str) -> Step:
        """Give up the round under way, if there is one."""

    def start_round(self, model: bytes, present: Iterable[int]) -> Step:
        """Begin a round."""

    def resume_at(self, round: int) -> None:
        """Go on after this round, whose number is not used again."""

    def finish(self, peers: Iterable[int], reason: str) -> Step:
        """Tell clients that the session is over."""


class ClientParty(Protocol):
    """A client."""

    @property
    def is_open(self) -> bool:
        """Whether it contributes to rounds."""

    @property
    def round(self) -> int:
        """The newest round that it was told of."""

    @property
    def state(self) -> bytes:
        """Everything that it is."""

    def start(self) -> Step:
        """Join."""

    def receive(self, data: bytes) -> Step:
        """Take one message of the server; RemoteProtocolError when it is wrong."""

    def reconnected(self) -> Step:
        """Say who is there, over a new connection."""

    def encrypt(self, integers: NDArray[Any]) -> Payload:
        """Return an update as it is sent; may run in another thread."""

    def contribute(self, round: int, update: NDArray[Any] | Payload, metrics: bytes = b"") -> Step:
        """Send an update."""
