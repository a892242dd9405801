"""Files of the state directory: private, whole or refused, one process at a time."""

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mphe.run.vault import StateError, Vault, write_atomically

IDENTITY = Ed25519PrivateKey.from_private_bytes(bytes(32))
DIGEST = bytes(range(32))
TEXT = b"a secret of some length"


def vault(directory: Path, identity: Ed25519PrivateKey = IDENTITY, index: int = 1) -> Vault:
    return Vault(directory, identity, index, DIGEST)


def refused(directory: Path, content: bytes) -> None:
    opened = vault(directory)
    (directory / "keys").write_bytes(content)
    try:
        with pytest.raises(StateError, match="cannot be used") as caught:
            opened.read("keys")
        assert "\n" not in str(caught.value)
    finally:
        opened.close()


def sealed(directory: Path) -> bytes:
    opened = vault(directory)
    opened.write("keys", TEXT)
    opened.close()
    return (directory / "keys").read_bytes()


def test_what_was_written_is_read_and_private(tmp_path: Path) -> None:
    opened = vault(tmp_path / "a" / "b")
    assert opened.read("keys") is None
    for text in (TEXT, b"", TEXT * 1000):
        opened.write("keys", text)
        assert opened.read("keys") == text
    assert TEXT not in (opened.directory / "keys").read_bytes()
    assert stat.S_IMODE(opened.directory.stat().st_mode) == 0o700
    files = sorted(opened.directory.iterdir())
    assert [path.name for path in files] == ["keys", "lock"]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    opened.close()


def test_equal_texts_are_sealed_differently(tmp_path: Path) -> None:
    assert sealed(tmp_path / "x") != sealed(tmp_path / "x")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = sealed(tmp_path / "x")
    for end in range(len(content)):
        refused(tmp_path / "x", content[:end])


def test_every_changed_byte_is_refused(tmp_path: Path) -> None:
    content = sealed(tmp_path / "x")
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1
        refused(tmp_path / "x", bytes(changed))


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(content=st.binary(max_size=200))
def test_any_other_bytes_are_refused(tmp_path: Path, content: bytes) -> None:
    refused(tmp_path / "x", content)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    sealed(tmp_path / "x")
    others = [
        Vault(tmp_path / "x", Ed25519PrivateKey.generate(), 1, DIGEST),
        Vault(tmp_path / "y", IDENTITY, 2, DIGEST),
        Vault(tmp_path / "z", IDENTITY, 1, bytes(32)),
    ]
    for other in others:
        if other.directory != tmp_path / "x":
            (other.directory / "keys").write_bytes((tmp_path / "x" / "keys").read_bytes())
        with pytest.raises(StateError, match="with other flags or another key"):
            other.read("keys")
        other.close()
    opened = vault(tmp_path / "x")
    (tmp_path / "x" / "keys").rename(tmp_path / "x" / "journal")
    with pytest.raises(StateError):
        opened.read("journal")
    opened.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    opened = vault(tmp_path / "x")
    with pytest.raises(StateError, match="another process uses"):
        vault(tmp_path / "x")
    opened.close()
    vault(tmp_path / "x").close()


def test_a_directory_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir(mode=0o755)
    with pytest.raises(StateError, match="chmod 700"):
        vault(tmp_path / "x")
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="choose another --state_dir"):
        vault(tmp_path / "file" / "x")


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomically(tmp_path / "file", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_write_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, Path.replace

    def note_sync(descriptor: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        done.append(kind)
        sync(descriptor)

    def note_replace(path: Path, target: Path) -> Path:
        done.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_replace)
    write_atomically(tmp_path / "file", b"text")
    assert done == ["file", "rename", "directory"]
