"""mphe.net.tls: who is let in by the pinned contexts, without a socket."""

import hashlib
import os
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from mphe.net.tls import (
    Credentials,
    client_context,
    fingerprint,
    new_credentials,
    public_key,
    server_context,
)

SERVER = new_credentials("server")
ANN = new_credentials("client")
BOB = new_credentials("client")  # same name on purpose
EVE = new_credentials("client")


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[bytes, bytes]:
    """Shake hands in memory; return the leaf that the server saw and the one the client saw."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_side=False),
    ]
    for _ in range(4):
        for end in reversed(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    seen = [end.getpeercert(binary_form=True) for end in ends]
    assert ends[0].version() == "TLSv1.3"
    assert seen[0] is not None
    assert seen[1] is not None
    return seen[0], seen[1]


def foreign_certificate(signed_by: Credentials, name: str) -> Credentials:
    """A certificate with a new key that a pinned party issued to somebody else."""
    issuer = x509.load_der_x509_certificate(signed_by.certificate).subject
    key = Ed25519PrivateKey.generate()
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(signed_by.private_key, algorithm=None)
    )
    return Credentials(key, certificate.public_bytes(Encoding.DER))


def test_pinned_parties_see_each_other() -> None:
    server = server_context(SERVER, [ANN.certificate, BOB.certificate])
    for client in (ANN, BOB):
        seen = handshake(server, client_context(client, SERVER.certificate))
        assert seen == (client.certificate, SERVER.certificate)


def test_unpinned_client_is_refused() -> None:
    server = server_context(SERVER, [ANN.certificate, BOB.certificate])
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client_context(EVE, SERVER.certificate))


def test_client_without_certificate_is_refused() -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(cadata=SERVER.certificate)
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        handshake(server_context(SERVER, [ANN.certificate]), client)


def test_stolen_certificate_without_its_key_is_of_no_use() -> None:
    stolen = Credentials(EVE.private_key, ANN.certificate)
    with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
        client_context(stolen, SERVER.certificate)


def test_pinned_client_cannot_issue_certificates() -> None:
    server = server_context(SERVER, [ANN.certificate])
    friend = foreign_certificate(ANN, "friend")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client_context(friend, SERVER.certificate))


def test_wrong_server_is_refused() -> None:
    server = server_context(new_credentials("server"), [ANN.certificate])
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client_context(ANN, SERVER.certificate))


def test_a_client_cannot_pose_as_the_server() -> None:
    server = server_context(BOB, [ANN.certificate])
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client_context(ANN, SERVER.certificate))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_older_tls_is_refused() -> None:
    client = client_context(ANN, SERVER.certificate)
    client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        handshake(server_context(SERVER, [ANN.certificate]), client)


def test_public_key_and_fingerprint() -> None:
    assert public_key(ANN.certificate) == ANN.private_key.public_key().public_bytes_raw()
    assert fingerprint(ANN.certificate) == hashlib.sha256(ANN.certificate).digest()
    assert fingerprint(ANN.certificate) != fingerprint(BOB.certificate)


def test_public_key_of_something_else() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "curve")])
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    for junk in (b"", b"junk", ANN.certificate + b"x", certificate.public_bytes(Encoding.DER)):
        with pytest.raises(ValueError):
            public_key(junk)


def test_a_private_key_touches_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack: the process is killed while its context is made, and the key is left in TMPDIR."""
    if not hasattr(os, "memfd_create"):
        pytest.skip("this system has no files in memory")

    def fail(*args: object, **options: object) -> None:
        raise AssertionError("a directory was made")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", fail)
    client_context(ANN, SERVER.certificate)


def test_without_files_in_memory_nobody_else_can_read_the_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    modes: list[int] = []
    real = ssl.SSLContext.load_cert_chain

    def spy(context: ssl.SSLContext, path: str) -> None:
        modes.extend(place.stat().st_mode & 0o777 for place in (Path(path), Path(path).parent))
        real(context, path)

    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", spy)
    client_context(ANN, SERVER.certificate)
    assert modes == [0o600, 0o700] and not list(tmp_path.iterdir())
