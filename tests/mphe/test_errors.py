"""mphe.errors: who is to blame can be read from the class."""

from __future__ import annotations

import inspect

import pytest

from mphe import errors
from mphe.errors import (
    DuplicateMessage,
    EncodingError,
    LocalProtocolError,
    MalformedMessage,
    MpheError,
    ParameterError,
    ProtocolError,
    RefusedDecryption,
    RemoteProtocolError,
    SetupFailed,
    UnexpectedSender,
)


def test_every_error_of_the_package_has_one_base() -> None:
    classes = [value for _, value in inspect.getmembers(errors, inspect.isclass)]
    raised = [cls for cls in classes if issubclass(cls, Exception)]
    assert len(raised) == 14
    assert all(issubclass(cls, MpheError) for cls in raised)


@pytest.mark.parametrize("cls", [ParameterError, EncodingError])
def test_wrong_values_are_value_errors_too(cls: type[MpheError]) -> None:
    assert issubclass(cls, ValueError)
    assert not issubclass(cls, ProtocolError)


@pytest.mark.parametrize(
    "cls", [MalformedMessage, DuplicateMessage, UnexpectedSender, RefusedDecryption]
)
def test_faults_of_a_peer_name_it(cls: type[RemoteProtocolError]) -> None:
    error = cls(7, "because")
    assert isinstance(error, RemoteProtocolError)
    assert (error.sender, error.reason, str(error)) == (7, "because", "party 7: because")


def test_our_own_faults_are_not_blamed_on_a_peer() -> None:
    assert issubclass(LocalProtocolError, ProtocolError)
    assert not issubclass(LocalProtocolError, RemoteProtocolError)


def test_the_end_of_the_set_up_is_no_protocol_error() -> None:
    # Whoever catches a peer's fault must not swallow it.
    assert not issubclass(SetupFailed, ProtocolError)


def test_a_failed_setup_names_the_missing_in_order() -> None:
    error = SetupFailed("too few", {3, 1, 2})
    assert error.missing == (1, 2, 3)
    assert str(error) == "setup failed: too few (missing clients: 1, 2, 3)"
    assert "none" in str(SetupFailed("mismatch", ()))
