"""Which error ends a party with which exit code, and who says it."""

import errno
import signal

import pytest

import main
from fl.config.exits import EVERYWHERE, EXIT_FAILED, EXIT_SIGNAL, EXIT_USAGE, Refused, find
from fl.config.flags import UsageError
from fl.config.place import Place
from fl.data.user_code import UserError
from fl.learning.private_learner import BudgetSpent
from fl.privacy.privacy import PrivacyError
from fl.run.exits import end_of_client, end_of_server
from fl.run.stopping import Stopped
from mphe.errors import EncodingError, LocalProtocolError, SetupFailed
from mphe.net.tcp import AddressError, Unreachable, WrongServer
from mphe.run.session import ServerGone
from mphe.run.vault import StateError


def client(error: Exception, launched: bool = False, lives: bool = True) -> int | None:
    ending = end_of_client(error, launched, "state", lambda: lives)
    return ending.code if ending else None


@pytest.mark.parametrize("kind", [UsageError, PrivacyError, UserError])
def test_what_a_party_was_given_is_refused_with_2(kind: type[Refused]) -> None:
    rule = find(kind("a line"), EVERYWHERE)
    assert rule is not None and rule.code == EXIT_USAGE == 2


@pytest.mark.parametrize(
    ("error", "alone"),
    [
        (ServerGone("gone"), 1),
        (Unreachable("nobody there"), 1),
        (WrongServer("another key"), 1),
        (LocalProtocolError("too early"), 1),
        (EncodingError("no model"), 1),
    ],
)
def test_a_client_leaves_the_code_to_a_server_that_lives(error: Exception, alone: int) -> None:
    assert client(error) == alone
    assert client(error, lives=False) == alone
    assert client(error, launched=True) == 0
    assert client(error, launched=True, lives=False) == alone


def test_what_ends_one_client_alone() -> None:
    assert client(BudgetSpent("spent")) == 0
    assert client(StateError("damaged")) == EXIT_USAGE
    assert client(StateError("damaged"), launched=True, lives=False) == 0
    assert client(Stopped(signal.SIGTERM)) == EXIT_SIGNAL + signal.SIGTERM
    assert client(Stopped(signal.SIGTERM), launched=True) == 0
    full = OSError(errno.ENOSPC, "No space left on device")
    assert client(full) == EXIT_FAILED
    said = end_of_client(full, False, "state", lambda: True)
    assert said is not None and "--state_dir state (No space left on device)" in said.line
    assert end_of_client(full, False, None, lambda: True) is None


def test_what_ends_the_server() -> None:
    ends = {
        "the port is taken": end_of_server(AddressError("the port is taken"), "out"),
        "damaged": end_of_server(StateError("damaged"), "out"),
    }
    assert {line: (end.code, end.line) for line, end in ends.items() if end} == {
        line: (EXIT_USAGE, line) for line in ends
    }
    failed = end_of_server(SetupFailed("no key", ()), "out")
    assert failed is not None and failed.code == EXIT_FAILED
    assert failed.line.endswith("; start again with all clients")
    full = end_of_server(OSError(errno.EDQUOT, "quota"), "out")
    assert full is not None and full.code == EXIT_FAILED and "to out;" in full.line


@pytest.mark.parametrize("error", [ValueError("?"), OSError(errno.EIO, "bad disk")])
def test_what_nobody_expected_is_not_explained_away(error: Exception) -> None:
    assert end_of_server(error, "out") is None
    assert end_of_client(error, False, None, lambda: True) is None


@pytest.mark.parametrize(
    ("error", "rank", "local_rank", "code", "said"),
    [
        (UsageError("wrong"), 0, 0, 2, "main.py: wrong\n"),
        (UsageError("wrong"), 3, 0, 0, ""),
        (PrivacyError("too few bits"), 1, 1, 0, ""),
        (StateError("damaged"), 0, 0, 2, "main.py: damaged\n"),
        (StateError("damaged"), 1, 1, 0, ""),
        (main.NoMPI("no MPI"), 3, 0, 0, "main.py: no MPI\n"),
        (UserError("no file"), 3, 0, 0, "main.py: rank 3: no file\n"),
        (UserError("no file"), 3, 1, 0, ""),
        (KeyboardInterrupt(), 0, 0, 130, "main.py: interrupted\n"),
        (KeyboardInterrupt(), 1, 1, 0, ""),
        (ValueError("two\nlines"), 2, 2, 0, "main.py: rank 2: ValueError: two lines\n"),
        (ValueError("odd"), 0, 0, 1, "main.py: rank 0: ValueError: odd\n"),
    ],
)
def test_one_rank_speaks_and_the_first_has_the_code(
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    rank: int,
    local_rank: int,
    code: int,
    said: str,
) -> None:
    assert main.report(error, Place(rank, 8, local_rank, 4)) == code
    assert capsys.readouterr().err == said


def test_alone_every_party_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.report(UsageError("wrong"), None) == 2
    assert main.report(ValueError("odd"), None) == 1
    assert capsys.readouterr().err == "main.py: wrong\nmain.py: ValueError: odd\n"
