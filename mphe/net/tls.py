"""Identities and TLS 1.3 contexts that trust exactly the pinned certificates."""

import hashlib
import os
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

CLOCK_SKEW = timedelta(days=1)
LIFETIME = timedelta(days=3650)  # the pin decides whom we trust, not the dates


@dataclass(frozen=True)
class Credentials:
    """One party's signing key and its self-signed certificate (DER)."""

    private_key: Ed25519PrivateKey
    certificate: bytes


def new_credentials(name: str) -> Credentials:
    """Make a fresh key and certificate; `name` (1 to 64 characters) is for people to read."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    # The key identifiers tell OpenSSL certificates of equal names apart; ca=False keeps
    # a trusted client from issuing certificates to others.
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, algorithm=None)
    )
    return Credentials(key, certificate.public_bytes(serialization.Encoding.DER))


def public_key(certificate: bytes) -> bytes:
    """Return the raw 32-byte Ed25519 key of a DER certificate.

    Raises ValueError for anything else.
    """
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except UnsupportedAlgorithm as error:
        raise ValueError(f"certificate with an unknown kind of key: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("certificate without an Ed25519 key; make one with new_credentials")
    return key.public_bytes_raw()


def fingerprint(certificate: bytes) -> bytes:
    """Return the SHA-256 digest of a DER certificate: the pin."""
    return hashlib.sha256(certificate).digest()


def server_context(own: Credentials, client_certificates: Sequence[bytes]) -> ssl.SSLContext:
    """Return a context that lets in exactly the holders of `client_certificates` (DER)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # every connection proves its identity anew
    return _pinned(context, own, client_certificates)


def client_context(own: Credentials, server_certificate: bytes) -> ssl.SSLContext:
    """Return a context that talks to the holder of `server_certificate` (DER) alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the pin is the identity, wherever the server runs
    return _pinned(context, own, [server_certificate])


def _pinned(context: ssl.SSLContext, own: Credentials, trusted: Sequence[bytes]) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    for certificate in trusted:
        context.load_verify_locations(cadata=certificate)
    key = own.private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with _as_file(key + ssl.DER_cert_to_PEM_cert(own.certificate).encode()) as path:
        context.load_cert_chain(path)
    return context


@contextmanager
def _as_file(secret: bytes) -> Iterator[str]:
    """Yield a path where `secret` can be read: the ssl module reads keys from files only.

    It lies in memory where the system has such files. Elsewhere it is on a disk for a moment, for
    this user alone, and stays there if the process is killed just then.
    """
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        with open(os.memfd_create("identity"), "wb", buffering=0) as file:
            file.write(secret)
            yield f"/proc/self/fd/{file.fileno()}"
        return
    with tempfile.TemporaryDirectory(prefix="identity-") as directory:
        path = Path(directory, "identity.pem")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secret)
            file.flush()
            yield str(path)
