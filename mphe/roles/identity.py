"""Who a party is: an Ed25519 key that signs, and the public keys of all others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mphe.errors import ParameterError
from mphe.scheme.sealing import KEY_BYTES


@dataclass(frozen=True)
class Identity:
    """A party's signing key; secret but for `public`."""

    private_key: Ed25519PrivateKey

    @classmethod
    def generate(cls) -> Identity:
        """Return a fresh identity."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, private: bytes) -> Identity:
        """Return the identity of a private key of 32 bytes.

        Raises:
            ParameterError: these are not 32 bytes.
        """
        if len(private) != KEY_BYTES:
            raise ParameterError(f"a private key has {KEY_BYTES} bytes, not {len(private)}")
        return cls(Ed25519PrivateKey.from_private_bytes(private))

    def to_bytes(self) -> bytes:
        """Return the private key, 32 bytes."""
        return self.private_key.private_bytes_raw()

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes."""
        return self.private_key.public_key().public_bytes_raw()


class Roster(Mapping[int, bytes]):
    """The public keys of all clients by index, from somewhere that the server cannot change."""

    def __init__(self, keys: Mapping[int, bytes]) -> None:
        """Take the keys of clients 1..n, 32 bytes each.

        Raises:
            ParameterError: an index is missing, or a key has another length or two owners.
        """
        if sorted(keys) != list(range(1, len(keys) + 1)):
            raise ParameterError("a roster names the clients 1, 2, … without a gap")
        wrong = [index for index, key in keys.items() if len(key) != KEY_BYTES]
        if wrong:
            raise ParameterError(f"the key of client {wrong[0]} has not {KEY_BYTES} bytes")
        if len(set(keys.values())) != len(keys):
            raise ParameterError("two clients of the roster have one key")
        self._keys = dict(sorted(keys.items()))

    def __getitem__(self, index: int) -> bytes:
        return self._keys[index]

    def __iter__(self) -> Iterator[int]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def check_roster(roster: Mapping[int, bytes], num_clients: int) -> Roster:
    """Return the roster of a session of so many clients.

    Raises:
        ParameterError: it has another number of clients, or is malformed.
    """
    checked = roster if isinstance(roster, Roster) else Roster(roster)
    if len(checked) != num_clients:
        raise ParameterError(f"a roster of {len(checked)} clients for {num_clients}: list them all")
    return checked
