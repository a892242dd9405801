"""Identities in files, the roster, and starting one party without a launcher."""

import argparse
import base64
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fl.run.client
from fl.config.arguments import Args
from fl.config.configs import Config
from fl.config.flags import UsageError
from fl.config.place import Place
from fl.config.resolve import parse_args, resolve
from fl.data.load import Dataset
from fl.launch.identity import identity_command, make_identity, read_identity
from fl.launch.mpi import Launch, end_stragglers
from fl.launch.roster import MAX_ROSTER, check_flags, join, read_roster
from fl.learning.build import make_learner
from mphe.net.tls import new_credentials, public_key
from mphe.run.session import ServerGone
from tests.fl.program import run
from tests.ports import free_port

PARTIES = ("server", "alice", "bob")


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A directory with the identities of a server and two clients, and their roster."""
    lines = [json.loads(make_identity(tmp_path / name, name)) for name in PARTIES]
    write(tmp_path, {"server": lines[0], "clients": lines[1:]})
    return tmp_path


def write(desk: Path, content: Any) -> None:
    (desk / "roster.json").write_text(json.dumps(content))


def entry(name: str = "eve") -> dict[str, str]:
    certificate = new_credentials(name).certificate
    return {"name": name, "certificate": base64.b64encode(certificate).decode()}


def words(desk: Path, role: str, who: str, *more: str) -> list[str]:
    flags = {
        "--num_peers": "2",
        "--server_address": f"127.0.0.1:{free_port()}",
        "--robust": "True",
        "--dataset": "mnist5k",
        "--role": role,
        "--roster": str(desk / "roster.json"),
        "--identity": str(desk / who),
        "--output": str(desk / "out"),
    }
    flags |= dict(zip(more[::2], more[1::2], strict=True))
    return [word for pair in flags.items() for word in pair]


def args(desk: Path, role: str, who: str, *more: str) -> Config:
    return parse_args(words(desk, role, who, *more))


def refused(action: Callable[[], object], hint: str) -> None:
    """Assert that an action fails with one line that contains the hint."""
    with pytest.raises(UsageError) as caught:
        action()
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


# -- identities --------------------------------------------------------------------------------


def test_an_identity_survives_its_files(tmp_path: Path) -> None:
    line = make_identity(tmp_path / "deep" / "er", "Clinic Zürich")
    assert "\n" not in line
    identity = read_identity(tmp_path / "deep" / "er")
    told = json.loads(line)
    assert told["name"] == "Clinic Zürich"
    assert base64.b64decode(told["certificate"]) == identity.certificate
    assert identity.private_key.public_key().public_bytes_raw() == public_key(identity.certificate)


def test_only_the_owner_can_read_the_key(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_identity(tmp_path / "mine", "mine")
    finally:
        os.umask(before)
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "mine" / "key.pem").stat().st_mode & 0o777 == 0o600
    os.chmod(tmp_path / "mine" / "key.pem", 0o640)
    refused(lambda: read_identity(tmp_path / "mine"), "run chmod 600 ")


def test_an_identity_is_never_overwritten(tmp_path: Path) -> None:
    make_identity(tmp_path / "mine", "mine")
    key = (tmp_path / "mine" / "key.pem").read_bytes()
    refused(lambda: make_identity(tmp_path / "mine", "mine"), "name a new directory")
    assert (tmp_path / "mine" / "key.pem").read_bytes() == key
    # Not even an empty one: others may be able to read it.
    (tmp_path / "empty").mkdir()
    refused(lambda: make_identity(tmp_path / "empty", "mine"), "name a new directory")
    (tmp_path / "file").touch()
    refused(lambda: make_identity(tmp_path / "file" / "below", "x"), "name another directory")


@pytest.mark.parametrize("name", ["", "x" * 65, "ü" * 33, "two\nlines", "\udc80"])
def test_unfit_names(tmp_path: Path, name: str) -> None:
    refused(lambda: make_identity(tmp_path / "mine", name), "1 to 64 printable bytes")
    assert not (tmp_path / "mine").exists()


def test_damaged_identities(desk: Path) -> None:
    alice, bob = desk / "alice", desk / "bob"
    refused(lambda: read_identity(desk / "none"), "make an identity with python main.py --new_id")
    (alice / "certificate.pem").write_bytes((bob / "certificate.pem").read_bytes())
    refused(lambda: read_identity(alice), "is not the certificate of key.pem beside it")
    (alice / "certificate.pem").write_bytes(b"\xff")
    refused(lambda: read_identity(alice), "is not the certificate of key.pem beside it")
    (alice / "key.pem").write_text("no key")
    refused(lambda: read_identity(alice), "is no unencrypted Ed25519 key")
    (alice / "key.pem").write_bytes(b" " * (1 << 16 | 1))
    refused(lambda: read_identity(alice), "is longer than 65536 bytes")


def test_the_command_for_an_identity(tmp_path: Path) -> None:
    done = run("--new_identity", str(tmp_path / "alice"))
    assert done.returncode == 0 and done.stdout.count("\n") == 1
    told = json.loads(done.stdout)
    assert told["name"] == "alice" and set(told) == {"name", "certificate"}
    assert done.stderr.count("\n") == 1
    assert "send the line above" in done.stderr and "key.pem is secret" in done.stderr
    again = run("--new_identity", str(tmp_path / "alice"), "--name", "x")
    assert (again.returncode, again.stdout, again.stderr.count("\n")) == (2, "", 1)
    assert "name a new directory" in again.stderr


def test_words_that_do_not_go_with_an_identity(tmp_path: Path) -> None:
    target = str(tmp_path / "x")
    alone = Place(0, 1, 0, 1)
    refused(lambda: identity_command(["--new_identity"], None), "expected one argument")
    refused(
        lambda: identity_command(["--new_identity", target, "--seed", "1"], None), "only --name"
    )
    refused(lambda: identity_command(["--new_identity", target], alone), "without mpirun")
    refused(lambda: parse_args(["--new-identity", target]), "did you mean --new_identity?")
    assert not (tmp_path / "x").exists()
    line, directory = identity_command([f"--new_identity={target}", "--name", "Lab 7"], None)
    assert (json.loads(line)["name"], directory) == ("Lab 7", Path(target))


# -- the roster --------------------------------------------------------------------------------


def test_the_position_is_the_index(desk: Path) -> None:
    roster = read_roster(desk / "roster.json", 2)
    assert roster.names == PARTIES
    for name, certificate in zip(PARTIES, roster.certificates, strict=True):
        assert read_identity(desk / name).certificate == certificate


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (b"", "is not JSON (Expecting value"),
        (b"{", "is not JSON"),
        (b"\xff\xfe\xfa", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"server": 1, "server": 2}', "names a key twice"),
        (b"[]", 'is no roster: write {"server"'),
        (b'{"server": {}}', "is no roster"),
        (b'{"server": {}, "clients": [], "more": 1}', "is no roster"),
        (b'{"server": {}, "clients": {}}', "has no list of clients"),
        (b'{"server": {}, "clients": []}', "lists 0 clients but --num_peers is 2"),
        (b'{"server": {}, "clients": [1, 2, 3]}', "lists 3 clients but --num_peers is 2"),
        (b'{"server": {}, "clients": [1, 2]}', "the server is not a line that --new_identity"),
        (b" " * (MAX_ROSTER + 1), "is longer than"),
    ],
)
def test_files_that_are_no_roster(tmp_path: Path, text: bytes, hint: str) -> None:
    (tmp_path / "roster.json").write_bytes(text)
    refused(lambda: read_roster(tmp_path / "roster.json", 2), hint)


def test_a_missing_roster(tmp_path: Path) -> None:
    refused(lambda: read_roster(tmp_path / "none.json", 2), "none.json (No such file")


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"certificate": "AAAA"}, "the certificate of client 2 is damaged"),
        ({"certificate": "no base64!"}, "the certificate of client 2 is damaged"),
        ({"certificate": "é"}, "the certificate of client 2 is damaged"),
        ({"certificate": 7}, "client 2 is not a line that --new_identity prints"),
        ({"name": "\u001b[2J"}, "client 2 is not a line"),
        ({"name": ""}, "client 2 is not a line"),
        ({"port": 1}, "client 2 is not a line"),
    ],
)
def test_bad_entries(desk: Path, change: dict[str, Any], hint: str) -> None:
    write(desk, {"server": entry(), "clients": [entry(), entry() | change]})
    refused(lambda: read_roster(desk / "roster.json", 2), hint)


def test_nobody_is_listed_twice(desk: Path) -> None:
    same = entry()
    write(desk, {"server": entry(), "clients": [same, same | {"name": "other"}]})
    hint = "gives client 1 and client 2 the same certificate"
    refused(lambda: read_roster(desk / "roster.json", 2), hint)
    write(desk, {"server": same, "clients": [entry(), same]})
    hint = "gives the server and client 2 the same certificate"
    refused(lambda: read_roster(desk / "roster.json", 2), hint)


def test_one_key_in_two_certificates_is_listed_twice(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = new_credentials("one")
    monkeypatch.setattr(
        "mphe.net.tls.Ed25519PrivateKey", argparse.Namespace(generate=lambda: first.private_key)
    )
    second = new_credentials("two")
    assert first.certificate != second.certificate
    lines = [
        {"name": "x", "certificate": base64.b64encode(made.certificate).decode()}
        for made in (first, second)
    ]
    monkeypatch.undo()
    write(desk, {"server": entry(), "clients": lines})
    refused(lambda: read_roster(desk / "roster.json", 2), "the same certificate")


# -- starting one party ------------------------------------------------------------------------


def test_every_party_finds_its_place(desk: Path) -> None:
    certificates = read_roster(desk / "roster.json", 2).certificates
    for index, name in enumerate(PARTIES):
        role = "client" if index else "server"
        launch, greeting = join(args(desk, role, name), None)
        assert launch.index == index and launch.certificates == certificates
        assert launch.identity.certificate == certificates[index]
        assert (launch.dataset, launch.notice, launch.processes) == ("mnist5k", None, ())
        assert not launch.own_data
        assert bool(launch.output) == (index == 0)
        assert ("waits for clients 1 to 2" if index == 0 else f"({name})") in greeting
        assert end_stragglers(launch, 0) == []


def test_a_stranger_is_refused(desk: Path) -> None:
    make_identity(desk / "eve", "alice")
    refused(lambda: join(args(desk, "client", "eve"), None), "is not on ")


def test_a_role_is_the_one_of_the_roster(desk: Path) -> None:
    refused(lambda: join(args(desk, "client", "server"), None), "as a server: use --role server")
    refused(lambda: join(args(desk, "server", "bob"), None), "as a client: use --role client")


def test_the_port_and_the_results_are_checked(desk: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        given = args(desk, "server", "server", "--server_address", address)
        refused(lambda: join(given, None), "is in use: choose another port")
        join(args(desk, "client", "bob", "--server_address", address), None)
    (desk / "out").mkdir(exist_ok=True)
    (desk / "out" / "metrics.jsonl").touch()
    refused(lambda: join(args(desk, "server", "server"), None), "already holds results")


@pytest.mark.parametrize(
    ("flags", "place", "hint"),
    [
        ({"roster": None, "identity": None}, None, "--role without --roster, --identity"),
        ({"identity": None}, None, "--role, --roster without --identity"),
        ({"role": None}, None, "--roster, --identity without --role"),
        ({"role": None, "roster": None}, None, "--identity without --role, --roster"),
        ({}, Place(0, 3, 0, 3), "without mpirun or srun, or leave out --role"),
        ({"tls": False}, None, "--role needs --tls True"),
        ({"dataset": "auto"}, None, "name the dataset"),
    ],
)
def test_flags_that_do_not_go_together(flags: dict, place: Place | None, hint: str) -> None:
    usual = {"role": "client", "roster": "r", "identity": "i", "dataset": "mnist5k"}
    given = resolve(Args(num_peers=2, server_address="a:1", robust=True, **usual | flags))
    refused(lambda: check_flags(given, place), hint)


def test_an_unknown_role() -> None:
    flags = ["--num_peers", "2", "--server_address", "a:1", "--robust", "True", "--role", "boss"]
    refused(lambda: parse_args(flags), "choose one of server, client")


def test_usage_errors_of_the_command_are_one_line(desk: Path) -> None:
    for line, environ, hint in (
        (words(desk, "client", "bob"), {"OMPI_COMM_WORLD_RANK": "0"}, "without mpirun"),
        (words(desk, "client", "bob", "--dataset", "auto"), {}, "name the dataset"),
        (words(desk, "client", "none"), {}, "--new_identity"),
        (words(desk, "client", "bob", "--dataset", "npz:none"), {}, "no file none"),
        (words(desk, "client", "bob", "--model", "no.py:f"), {}, "--model: cannot read no.py"),
    ):
        done = run(*line, **environ)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert done.stderr.startswith("main.py: ") and done.stderr.count("\n") == 1
        assert hint in done.stderr


# -- what a client does differently --------------------------------------------------------------


class NoModel:
    """Stands in for a Trainer, which takes seconds to build."""

    size = 1

    def __init__(self, _seed: int, _model: str, _data: Dataset) -> None:
        pass

    def gradient(self, _x: np.ndarray, _y: np.ndarray) -> None:
        pass


def test_own_data_is_not_split(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl.learning.build.Trainer", NoModel)
    x, y = np.zeros((10, 28, 28), np.uint8), np.arange(10)
    np.savez(desk / "own.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    given = args(desk, "client", "bob", "--dataset", f"npz:{desk / 'own.npz'}")
    launch, _ = join(given, None)
    assert launch.own_data
    learner = make_learner(given, launch.index, launch.dataset, launch.own_data)
    assert learner._y.tolist() == list(range(10))
    assert len(make_learner(given, launch.index, launch.dataset)._y) == 5
    server, _ = join(args(desk, "server", "server", "--dataset", given.data.dataset), None)
    assert not server.own_data


@pytest.mark.parametrize(
    ("processes", "listens", "code"),
    [((), True, 1), ((), False, 1), ((("a", 1), ("a", 2)), True, 0), ((("a", 1),), False, 1)],
)
def test_exit_codes_of_a_client_that_fails(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    processes: tuple,
    listens: bool,
    code: int,
) -> None:
    async def fail(_config: Config, _launch: Launch) -> None:
        raise ServerGone("left out")

    monkeypatch.setattr("fl.run.client._take_part", fail)
    monkeypatch.setattr("fl.run.client.server_listens", lambda _host, _port: listens)
    given = resolve(Args(num_peers=2, server_address="a:1", robust=True))
    launch = Launch(1, new_credentials("x"), (), processes, "mnist5k", None, "")
    assert fl.run.client.run(given, launch, 1) == code
    assert capsys.readouterr().err == "client 1: left out\n"
