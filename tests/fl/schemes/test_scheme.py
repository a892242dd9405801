"""A scheme is one file and one line of registration: flags, parties and training follow from it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fl.config.flags import UsageError
from fl.config.schemes import SCHEMES, SchemeEntry, describe_sums
from fl.schemes.mphe import MpheAgreement, MpheScheme
from fl.schemes.plain import PlainScheme
from fl.schemes.scheme import Setting, scheme_of
from mphe import EncodingError, Identity, Roster, SessionReady, make_plan
from mphe.run import Contribution, decode
from tests.fl.federation import SIZE, agreement_of, expected_weights, flags, run
from tests.fl.masked import MASK, MaskedScheme, MaskedServer

EVERYBODY = Roster({index: Identity.generate().public for index in (1, 2, 3, 4)})
READY = SessionReady((1, 2, 3, 4), (1, 2, 3), (), (4,))


@pytest.fixture
def masked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Register the toy and return the flag that chooses it."""
    entry = SchemeEntry("tests.fl.masked:MaskedScheme", hides=False, encrypts=False)
    monkeypatch.setitem(SCHEMES, "masked", entry)
    return ["--aggregation", "masked"]


def test_flags_choose_among_the_registered(tmp_path: Path, masked: list[str]) -> None:
    assert isinstance(scheme_of("mphe"), MpheScheme)
    assert isinstance(scheme_of("plain"), PlainScheme)
    assert isinstance(scheme_of(flags(tmp_path, *masked).codec.aggregation), MaskedScheme)
    with pytest.raises(UsageError, match="choose one of mphe, plain, masked, not 'sum'"):
        flags(tmp_path, "--aggregation", "sum")


def test_what_a_scheme_cannot_do_is_refused_in_its_name(tmp_path: Path, masked: list[str]) -> None:
    with pytest.raises(UsageError, match="--aggregation masked has nothing to verify"):
        flags(tmp_path, *masked, "--verify_aggregate", "True")
    with pytest.raises(UsageError, match="nothing to verify: leave out --verify_clients"):
        flags(tmp_path, *masked, "--verify_clients", "True")
    with pytest.raises(UsageError, match="leave out --aggregation masked"):
        flags(tmp_path, *masked, "--dp_epsilon", "1")
    assert any("masked shows every update" in line for line in flags(tmp_path, *masked).warnings)


def test_a_third_scheme_trains(tmp_path: Path, masked: list[str]) -> None:
    args = flags(tmp_path, *masked)
    outcome = run(args)
    everybody = 3 * [(1, 2, 3, 4)]
    assert outcome.client_errors == {}
    assert [record.contributors for record in outcome.history.records] == everybody
    assert np.allclose(outcome.weights, expected_weights(args, everybody), atol=2e-5)


def test_its_own_parties_speak(tmp_path: Path, masked: list[str]) -> None:
    agreement = agreement_of(flags(tmp_path, *masked), SIZE, EVERYBODY)
    server, seat = agreement.server(), agreement.client(1, Identity.generate(), None)
    assert isinstance(server, MaskedServer) and not seat.returns
    server.deadline_passed()
    for _, start in server.start_round(b"", [1]).mail:
        seat.party.receive(start)
    ((_, sent),) = seat.party.contribute(1, np.full(SIZE + 4, 0.5, np.float32)).mail
    message = decode(sent, 1)
    assert isinstance(message, Contribution)
    assert set(np.frombuffer(message.body, "<f4")) == {MASK + np.float32(0.5)}


def test_a_stored_server_is_not_another_schemes(tmp_path: Path) -> None:
    mphe = agreement_of(flags(tmp_path), SIZE, EVERYBODY)
    plain = agreement_of(flags(tmp_path, "--aggregation", "plain"), SIZE, EVERYBODY)
    assert plain.restored_server(plain.server().state).waiting_for() == ()
    for agreement, state in ((mphe, b""), (plain, b"state")):
        with pytest.raises(EncodingError):
            agreement.restored_server(state)


def test_a_stored_server_is_of_these_flags_and_identities(tmp_path: Path) -> None:
    agreement = agreement_of(flags(tmp_path), SIZE, EVERYBODY)
    state = agreement.server().state
    assert agreement.restored_server(state).waiting_for() == (1, 2, 3, 4)
    others = Roster({index: Identity.generate().public for index in EVERYBODY})
    with pytest.raises(EncodingError, match="other identities"):
        agreement_of(flags(tmp_path), SIZE, others).restored_server(state)
    fewer = flags(tmp_path, "--resiliency", "0.5")
    with pytest.raises(EncodingError, match="other flags"):
        agreement_of(fewer, SIZE, EVERYBODY).restored_server(state)


def test_what_is_said_when_rounds_may_begin(tmp_path: Path) -> None:
    mphe = agreement_of(flags(tmp_path, "--resiliency", "0.5"), SIZE, EVERYBODY).notices(READY)
    assert mphe.lines[0].startswith("collective key of 4 clients, any 2 of 3 decrypt; ")
    assert mphe.warnings == ("client 4 cannot decrypt: the shares dealt to them do not fit",)
    plain = agreement_of(flags(tmp_path, "--aggregation", "plain"), SIZE, EVERYBODY)
    assert plain.notices(READY) == ((), ())


def test_sums_have_the_name_of_their_scheme(masked: list[str]) -> None:
    assert describe_sums("mphe", "hybrid") == "mphe hybrid"
    assert [describe_sums(name, "hybrid") for name in ("plain", "masked")] == ["plain", "masked"]
    assert describe_sums("?", "") == "?"


@pytest.mark.parametrize("proven", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_groups_of_clients_that_may_lie_are_announced(
    tmp_path: Path, groups: int, proven: bool
) -> None:
    config = flags(tmp_path, "--resiliency", "0.5", "--min_contributors", "2")
    setting = Setting(config.session, SIZE, SIZE, EVERYBODY)
    session = dataclasses.replace(
        setting.plan.session, max_groups=groups, verify_clients=proven, min_contributors=2
    )
    vars(setting)["plan"] = make_plan(session)
    notices = MpheAgreement(setting).notices(SessionReady((1, 2, 3, 4), (1, 2, 3, 4), (), ()))
    warned = any("--verify_clients True rules that out" in line for line in notices.warnings)
    assert warned == (groups > 1 and not proven)
    assert ("clients prove what they send" in notices.lines[0]) == proven
