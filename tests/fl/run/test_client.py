"""What a client does with messages that were meant for the process before it."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl.model.round_model import RoundModel
from fl.run.client_session import ServerGone, Session
from mphe.arithmetic.sampling import RandomSource
from mphe.errors import LocalProtocolError, RemoteProtocolError
from mphe.net.tls import new_identity, public_key
from mphe.roles.machine import Send
from mphe.roles.rounds.contributor import State, TrainOn
from mphe.roles.setup.client import SetupClient
from mphe.update import PublicRange
from mphe.wire import codec
from mphe.wire.messages import (
    SERVER,
    DecryptionRequest,
    Join,
    Pledge,
    Refusal,
    RoundEnd,
    RoundStart,
)
from tests.fl.federation import SIZE, flags, plan_of
from tests.simulation import Simulation


class Sink:
    """A transport that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, payload: bytes) -> bool:
        self.sent.append(payload)
        return True


def test_a_restarted_client_is_not_upset_by_the_rounds_of_the_process_before(
    tmp_path: Path,
) -> None:
    args, identity = flags(tmp_path), new_identity("client 1")
    keys = {index: public_key(new_identity("other").certificate) for index in (2, 3, 4)}
    keys[1] = public_key(identity.certificate)
    sink: Any = Sink()
    learner: Any = None
    session = Session(1, learner, sink)
    plan = plan_of(args, SIZE)
    source = RandomSource.from_system()
    session.join(SetupClient(1, plan, identity.private_key, keys, source))
    session._take(
        RoundStart(7, RoundModel(np.zeros(SIZE, np.float32), PublicRange(1.0)).to_bytes())
    )
    session._take(RoundEnd(7, (2, 3)))
    session._take(DecryptionRequest(7, 1, (2, 3), (1, 2), b"c1"))
    assert not session.admitted
    said = [codec.decode(payload, 1) for payload in sink.sent]
    assert [type(message) for message in said] == [Join, Refusal]


class Overtaken:
    """A contributor of verified rounds: while it encrypts, a round begins that leaves it out."""

    def __init__(self, newer: int) -> None:
        self.round = 1
        self._newer = newer

    def encrypt(self, _values: Any) -> None:
        self.round = self._newer
        raise LocalProtocolError("this round does not list what this client pledged")


class Still:
    """A learner that has its update at once."""

    size = SIZE
    private = False

    def update(self, _round: int, _model: RoundModel) -> tuple[np.ndarray, float]:
        return np.zeros(SIZE, np.float32), 0.0

    def encode(self, *_: Any) -> np.ndarray:
        return np.zeros(SIZE, np.int64)


@pytest.mark.parametrize("newer", [2, 1])
def test_an_update_that_a_newer_round_overtakes_is_dropped(newer: int) -> None:
    sink, learner, contributor = Sink(), Still(), Overtaken(newer)
    session = Session(1, learner, sink)  # type: ignore[arg-type]
    session._contributor = contributor  # type: ignore[assignment]
    event = TrainOn(1, RoundModel(np.zeros(SIZE, np.float32), PublicRange(1.0)).to_bytes())
    if newer == 1:  # the same round: that is an error of ours, and is not hidden
        with pytest.raises(LocalProtocolError):
            asyncio.run(session._train(event))
        return
    asyncio.run(session._train(event))
    assert sink.sent == []


def test_the_end_of_a_round_that_began_before_a_client_was_back_is_no_news(tmp_path: Path) -> None:
    simulation = Simulation(3, 2)
    simulation.run_setup()
    sink: Any = Sink()
    learner: Any = Still()
    session = Session(1, learner, sink)
    contributor = simulation.contributors[1]
    session._contributor = contributor
    session._take(RoundEnd(13, ()))
    assert contributor.round == 0 and contributor.state is State.IDLE
    # Once it follows the rounds, a server that confuses them is not followed.
    contributor.receive(SERVER, RoundStart(14, b"model"))
    with pytest.raises(RemoteProtocolError, match="end of round 13 in 14"):
        session._take(RoundEnd(13, ()))


class Pledging:
    """A contributor that pledges the next round's c1 when a round starts."""

    round = 1

    def receive(self, _sender: int, message: RoundStart) -> list[Any]:
        return [Send(SERVER, Pledge(1, b"digest")), TrainOn(message.round, message.model)]


def test_who_leaves_a_round_on_purpose_has_pledged_the_next_and_does_not_train() -> None:
    sink, learner = Sink(), Still()
    session = Session(1, learner, sink, leaves=lambda round: round == 2)  # type: ignore[arg-type]
    session._contributor = Pledging()  # type: ignore[assignment]
    with pytest.raises(ServerGone):
        session._take(RoundStart(2, b"model"))
    assert [codec.decode(payload, 1) for payload in sink.sent] == [Pledge(1, b"digest")]
