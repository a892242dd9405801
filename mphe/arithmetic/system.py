"""What a party asks of the machine that it runs on.

Everything that two runs of the same party may differ in comes from here, so that whoever hands in
another one replays a run to the byte. All else is a function of messages and of what was drawn.
"""

from __future__ import annotations

import os

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey


class System:
    """Randomness, the process and the key encapsulation of the operating system's libraries."""

    def urandom(self, count: int) -> bytes:
        """Return fresh random bytes."""
        return os.urandom(count)

    def process(self) -> int:
        """Return the number of this process; a fork has another."""
        return os.getpid()

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        """Return a secret of 32 bytes and its 1,088 bytes of ciphertext, for a key of ML-KEM-768.

        It draws its own randomness, so that nothing that it returns can be drawn again.

        Raises:
            ValueError: these 1,184 bytes are no such key.
        """
        return MLKEM768PublicKey.from_public_bytes(public).encapsulate()
