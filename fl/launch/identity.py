"""A party's key and certificate in files."""

import base64
import json
import os
import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509 import InvalidVersion

from fl.config.arguments import OneLineParser
from fl.config.flags import UsageError
from fl.config.place import Place
from mphe.run import Credentials, new_credentials, public_key

KEY_FILE, CERTIFICATE_FILE = "key.pem", "certificate.pem"
MAX_NAME = 64  # bytes: X.509 has no room for a longer common name
MAX_PEM = 1 << 16


def identity_command(argv: Sequence[str], place: Place | None) -> tuple[str, Path]:
    """Carry out `--new_identity DIR [--name NAME]`; return the roster line and the directory.

    Raises UsageError, and SystemExit(0) after --help.
    """
    parser = OneLineParser(prog="main.py", allow_abbrev=False)
    parser.add_argument(
        "--new_identity",
        required=True,
        metavar="DIRECTORY",
        help="make a key and a certificate in this new directory and print the roster line",
    )
    parser.add_argument(
        "--name", metavar="NAME", help="for people to read; default: the directory's name"
    )
    given, unknown = parser.parse_known_args(list(argv))
    if unknown:
        raise UsageError(f"--new_identity takes only --name beside it, not {unknown[0]!r}")
    if place is not None:
        raise UsageError("--new_identity makes one key: run it without mpirun or srun")
    directory = Path(given.new_identity)
    name = directory.resolve().name if given.name is None else given.name
    return make_identity(directory, name), directory


def make_identity(directory: Path, name: str) -> str:
    """Write a fresh key and certificate into a new directory; return the line for the roster.

    Raises UsageError when the name is unfit, or the directory exists or cannot be written.
    """
    if not fit(name):
        raise UsageError(f"--name must be 1 to {MAX_NAME} printable bytes: give a shorter one")
    identity = new_credentials(name)
    key = identity.private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        directory.mkdir(mode=0o700, parents=True)
        _write(directory / KEY_FILE, key, 0o600)
        certificate = ssl.DER_cert_to_PEM_cert(identity.certificate).encode()
        _write(directory / CERTIFICATE_FILE, certificate, 0o644)
    except FileExistsError:
        raise UsageError(
            f"{directory} exists, and a key in it must not be lost: name a new directory"
        ) from None
    except OSError as error:
        raise UsageError(
            f"cannot write to {directory} ({error.strerror}): name another directory"
        ) from None
    encoded = base64.b64encode(identity.certificate).decode()
    return json.dumps({"name": name, "certificate": encoded})


def fit(name: str) -> bool:
    """Return whether a name fits a certificate and is safe to print."""
    return name.isprintable() and 1 <= len(name.encode()) <= MAX_NAME


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a new file that has its mode from the start."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def read_file(path: Path, limit: int, advice: str) -> bytes:
    """Read a file of at most `limit` bytes; UsageError with the advice otherwise."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror}): {advice}") from None
    if len(content) > limit:
        raise UsageError(f"{path} is longer than {limit} bytes: {advice}")
    return content


def read_identity(directory: Path) -> Credentials:
    """Read what make_identity wrote.

    Raises UsageError when a file is missing, others may read the key, or the two do not match.
    """
    path = directory / KEY_FILE
    advice = f"make an identity with python main.py --new_identity {directory}"
    text = read_file(path, MAX_PEM, advice)
    if path.stat().st_mode & 0o077:
        raise UsageError(f"others can read or change {path}: run chmod 600 {path}")
    try:
        key = serialization.load_pem_private_key(text, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path} is no unencrypted Ed25519 key in PEM: name the right directory")
    path = directory / CERTIFICATE_FILE
    text = read_file(path, MAX_PEM, advice)
    try:
        certificate = ssl.PEM_cert_to_DER_cert(text.decode("ascii"))
        matches = public_key(certificate) == key.public_key().public_bytes_raw()
    except (ValueError, InvalidVersion):
        matches = False
    if not matches:
        raise UsageError(f"{path} is not the certificate of {KEY_FILE} beside it: restore it")
    return Credentials(key, certificate)
