"""The state directory: what a party keeps to go on after its process died (docs/deployment.md).

Each party has DIR/server or DIR/client-<i>, mode 0700. Its files have mode 0600, are encrypted
under its identity, and are replaced in one step, so that a crash leaves the old or the new one.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mphe.errors import MpheError

LOCK = "lock"
SALT_BYTES = 32
_PURPOSE = b"secure-aggregation/state/1/"
# Every write has a key of its own, from a fresh salt.
_NONCE = bytes(12)


class StateError(MpheError):
    """A state directory that cannot be used as it is."""


def make_private(directory: Path) -> None:
    """Make a directory, if need be, that only its owner can enter; StateError if it cannot be."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if directory.stat().st_mode & 0o077:
            raise StateError(f"others can enter {directory}: run chmod 700 {directory}")
    except OSError as error:
        raise StateError(
            f"cannot write to {directory} ({error.strerror}): choose another --state_dir"
        ) from None


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file in one step, and return when the disk has it; OSError if that fails."""
    temporary = path.with_name(path.name + ".new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class Vault:
    """One party's encrypted files; this process alone uses them as long as it lives."""

    def __init__(self, directory: Path, identity: Ed25519PrivateKey, index: int, digest: bytes):
        """Lock the directory.

        Args:
            directory: of this party; made if need be.
            identity: its private key encrypts the files.
            index: of this party.
            digest: of the parameters that the files belong to.

        Raises:
            StateError: the directory cannot be used, or another process uses it.
        """
        make_private(directory)
        self.directory = directory
        self._secret = identity.private_bytes_raw()
        self._context = index.to_bytes(4, "big") + digest
        try:
            self._lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateError(
                f"another process uses {directory}: wait until it has ended, or end it"
            ) from None
        except OSError as error:
            raise StateError(
                f"cannot write to {directory} ({error.strerror}): choose another --state_dir"
            ) from None

    def close(self) -> None:
        """Let another process use the directory."""
        os.close(self._lock)

    def write(self, name: str, text: bytes) -> None:
        """Encrypt and keep a file; OSError when it cannot be written for good."""
        salt = os.urandom(SALT_BYTES)
        sealed = ChaCha20Poly1305(self._key(salt, name)).encrypt(_NONCE, text, self._context)
        write_atomically(self.directory / name, salt + sealed)

    def read(self, name: str) -> bytes | None:
        """Return what was kept, None when nothing was; StateError unless it is all there."""
        path = self.directory / name
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"cannot read {path} ({error.strerror}): restore it") from None
        salt, sealed = content[:SALT_BYTES], content[SALT_BYTES:]
        try:
            return ChaCha20Poly1305(self._key(salt, name)).decrypt(_NONCE, sealed, self._context)
        except InvalidTag:
            reason = "it was changed, or written with other flags or another key"
            raise self.refusal(name, reason) from None

    def read_all(self, *names: str) -> list[bytes] | None:
        """Return files that belong together, None without the first; StateError if one lacks."""
        texts = [self.read(name) for name in names]
        if texts[0] is None:
            return None
        for name, text in zip(names, texts, strict=True):
            if text is None:
                raise self.refusal(name, "it is missing")
        return [text for text in texts if text is not None]

    def refusal(self, name: str, reason: str) -> StateError:
        """Return the error for a file that cannot be used."""
        return StateError(
            f"{self.directory / name} cannot be used ({reason}): use the flags and the identity of "
            f"before, or move {self.directory} away to start without it"
        )

    def _key(self, salt: bytes, name: str) -> bytes:
        return HKDF(SHA256(), 32, salt=salt, info=_PURPOSE + name.encode()).derive(self._secret)
