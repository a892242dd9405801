"""Files of the state directory: private, whole or refused, one process at a time."""

import dataclasses
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fl.config.arguments import Args
from fl.config.configs import Config
from fl.config.flags import UsageError
from fl.config.resolve import parse_args
from fl.config.same_flags import MAY_CHANGE
from fl.launch import mpi as launch
from fl.report.metrics import write_config
from fl.state import vault as state
from fl.state.client import ClientState
from fl.state.vault import StateError, Vault, check_fresh, party_directory, write_atomically
from mphe.roles.rounds.decryptor import Memory
from tests.simulation import Simulation

IDENTITY = Ed25519PrivateKey.from_private_bytes(bytes(32))
DIGEST = bytes(range(32))
TEXT = b"a secret of some length"


def flags(directory: Path, *more: str) -> Config:
    line = "--num_peers 3 --server_address localhost:8080 --robust True"
    return parse_args([*line.split(), "--state_dir", str(directory), *more])


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


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
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


def test_a_kept_session_is_never_overwritten(tmp_path: Path) -> None:
    for index, name in ((0, state.SESSION), (2, state.KEYS)):
        check_fresh(str(tmp_path), index, resume=False)
        directory = party_directory(str(tmp_path), index)
        state.make_private(directory)
        (directory / name).touch()
        with pytest.raises(StateError, match="add --resume True"):
            check_fresh(str(tmp_path), index, resume=False)
        check_fresh(str(tmp_path), index, resume=True)


def test_there_must_be_something_to_resume(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="leave out --resume"):
        check_fresh(str(tmp_path), 0, resume=True)
    check_fresh(str(tmp_path), 1, resume=True)
    with pytest.raises(UsageError, match="needs the --state_dir"):
        parse_args(
            ["--num_peers", "3", "--server_address", "a:1", "--robust", "True", "--resume", "True"]
        )


def test_under_a_launcher_the_identity_is_kept(tmp_path: Path) -> None:
    made = launch.kept_identity(str(tmp_path), 1, "client 1", resume=False)
    again = launch.kept_identity(str(tmp_path), 1, "client 1", resume=True)
    assert again.certificate == made.certificate
    with pytest.raises(UsageError, match="is missing"):
        launch.kept_identity(str(tmp_path), 2, "client 2", resume=True)


def test_results_go_on_where_they_were(tmp_path: Path) -> None:
    where, results = tmp_path / "state", tmp_path / "results"
    output = launch.find_output(flags(where, "--output", str(results)))
    assert Path(output) == results
    write_config(results, dict(flags(where).flags), {})
    assert launch.find_output(flags(where, "--resume", "True")) == str(results)
    with pytest.raises(UsageError, match="leave out --output"):
        launch.find_output(flags(where, "--resume", "True", "--output", str(tmp_path / "other")))
    (results / "config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"config\.json: restore it"):
        launch.find_output(flags(where, "--resume", "True"))
    (results / "config.json").unlink()
    results.rmdir()
    with pytest.raises(UsageError, match="restore it"):
        launch.find_output(flags(where, "--resume", "True"))


@pytest.mark.parametrize(
    "words",
    [
        ["--learning_rate", "0.2"],
        ["--seed", "1"],
        ["--dataset", "mnist"],
        ["--partition", "shards:2"],
        ["--num_iterations", "7"],
        ["--value_bits", "8"],
        ["--local_steps", "2"],
    ],
)
def test_a_session_goes_on_with_the_flags_of_before(tmp_path: Path, words: list[str]) -> None:
    where = tmp_path / "state"
    output = Path(launch.find_output(flags(where, "--output", str(tmp_path / "out"))))
    write_config(output, dict(flags(where).flags), {})
    with pytest.raises(UsageError, match=f"^{words[0]} was .+, not {words[1]}") as caught:
        launch.find_output(flags(where, "--resume", "True", *words))
    assert "\n" not in str(caught.value)
    other = ["--server_address", "localhost:9000", "--round_timeout", "5", "--crypto_threads", "2"]
    launch.find_output(flags(where, "--resume", "True", *other))


def test_every_flag_that_may_change_exists() -> None:
    assert {field.name for field in dataclasses.fields(Args)} >= MAY_CHANGE


def test_a_client_finds_its_keys_and_its_memory(tmp_path: Path) -> None:
    simulation = Simulation(3, 2)
    simulation.run_setup()
    first = vault(tmp_path / "x")
    kept = ClientState(first)
    assert kept.load(simulation.plan, simulation.roster, 1) is None
    kept.keep(simulation.keys[1], Memory(confirming=False))
    kept.record(Memory(4, bytes(32), 2, 9, False))
    first.close()
    second = ClientState(vault(tmp_path / "x"))
    found = second.load(simulation.plan, simulation.roster, 1)
    assert found is not None
    assert found[0].transcript == simulation.keys[1].transcript
    assert found[1] == Memory(4, bytes(32), 2, 9, False)
    with pytest.raises(StateError, match="of another client"):
        second.load(simulation.plan, simulation.roster, 2)
    (tmp_path / "x" / "journal").unlink()
    with pytest.raises(StateError, match="journal cannot be used"):
        second.load(simulation.plan, simulation.roster, 1)
