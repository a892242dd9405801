"""A client that comes back to a session whose keys it still holds (docs/protocol.md, Restarts).

It signs T, for another purpose than in the set-up, and the server answers with SessionOpen. A
client without a share names itself among the dealers whose shares it did not open.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mphe.errors import MalformedMessage, UnexpectedSender
from mphe.roles.machine import Accepts, Machine, Moves, Output, Send
from mphe.roles.setup.client import KeysReady, Opened
from mphe.roles.setup.common import PublicSession, SessionKeys
from mphe.scheme import sealing
from mphe.wire.messages import SERVER, Message, Ready, SessionOpen


class ReturningState(Enum):
    """Where a returning client stands."""

    NEW = "new"
    ANNOUNCED = "announced"
    OPEN = "open"


def announce(keys: SessionKeys, identity: Ed25519PrivateKey) -> Ready:
    """Return what a client says that comes back."""
    signature = sealing.sign(identity, "return", keys.transcript)
    return Ready(signature, () if keys.share is not None else (keys.index,))


def check(session: PublicSession, sender: int, message: Ready) -> None:
    """Raise MalformedMessage unless the sender holds keys of this session."""
    identity = session.identities.get(sender, b"")
    if not sealing.verify(identity, message.signature, "return", session.transcript):
        raise MalformedMessage(
            sender, "it holds keys of another session; start it without them, in a new --state_dir"
        )


class ReturningClient(Machine[ReturningState]):
    """Stands in for the key set-up in a client that was started again with its keys."""

    ACCEPTS: ClassVar[Accepts] = {
        ReturningState.NEW: set(),
        ReturningState.ANNOUNCED: {SessionOpen},
        ReturningState.OPEN: set(),
    }
    MOVES: ClassVar[Moves] = {
        ReturningState.NEW: {"start": ReturningState.ANNOUNCED},
        ReturningState.ANNOUNCED: {"open": ReturningState.OPEN},
        ReturningState.OPEN: {},
    }

    def __init__(self, keys: SessionKeys, identity: Ed25519PrivateKey) -> None:
        super().__init__(ReturningState.NEW)
        self.identity = identity
        self._keys = keys
        self._handlers = {SessionOpen: self._on_open}

    def start(self) -> list[Output]:
        """Return the keys, and the announcement."""
        self._move("start")
        return [KeysReady(self._keys, ()), Send(SERVER, announce(self._keys, self.identity))]

    def receive(self, sender: int, message: Message) -> list[Output]:
        """Take one message of the server."""
        if sender != SERVER:
            raise UnexpectedSender(sender, "only the server speaks to a client")
        return super().receive(sender, message)

    def _on_open(self, _: int, message: SessionOpen) -> list[Output]:
        self._move("open")
        return [Opened(message.decryptors)]
