"""What a party shows on a connection, and whom it talks to."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from mphe.net.tls import Credentials, client_context, fingerprint, public_key, server_context
from mphe.roles.identity import Identity, Roster
from mphe.wire.messages import SERVER


@dataclass(frozen=True)
class Parties:
    """Everybody's certificates (DER) by index, 0 the server's, and one's own key.

    They come from somewhere that the server cannot change: a file that all agreed on.
    """

    own: Credentials
    certificates: Mapping[int, bytes]

    @property
    def identity(self) -> Identity:
        """This party's signing key."""
        return Identity(self.own.private_key)

    @property
    def roster(self) -> Roster:
        """The clients' public keys; ValueError for a certificate without an Ed25519 key."""
        return Roster({index: public_key(text) for index, text in self._clients().items()})

    @property
    def pins(self) -> dict[bytes, int]:
        """The index of each client by its certificate's fingerprint."""
        return {fingerprint(text): index for index, text in self._clients().items()}

    @property
    def server_pin(self) -> bytes:
        """The fingerprint of the server's certificate."""
        return fingerprint(self.certificates[SERVER])

    def server_context(self) -> ssl.SSLContext:
        """Return what lets in exactly these clients."""
        return server_context(self.own, list(self._clients().values()))

    def client_context(self) -> ssl.SSLContext:
        """Return what talks to this server alone."""
        return client_context(self.own, self.certificates[SERVER])

    def _clients(self) -> dict[int, bytes]:
        return {index: text for index, text in self.certificates.items() if index != SERVER}
