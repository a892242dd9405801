"""A client that comes back to a session whose keys it still holds (docs/protocol.md, Restarts).

It signs T, for another purpose than in the set-up, and the server answers with SessionOpen. A
client without a share names itself among the dealers whose shares it did not open.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mphe.errors import MalformedMessage
from mphe.roles.setup.common import PublicSession, SessionKeys
from mphe.scheme import sealing
from mphe.wire.messages import Ready


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
