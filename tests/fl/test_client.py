"""What a client does with messages that were meant for the process before it."""

from pathlib import Path
from typing import Any

import numpy as np

from fl.client import Session
from fl.session import Model, plan_for
from mphe import codec
from mphe.messages import DecryptionRequest, Join, Refusal, RoundEnd, RoundStart
from mphe.sampling import RandomSource
from mphe.setup_client import SetupClient
from net.tls import new_identity, public_key
from tests.fl.federation import SIZE, flags


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
    plan = plan_for(args, SIZE)
    source = RandomSource.from_system()
    session.join(SetupClient(1, plan, identity.private_key, keys, source))
    session._take(RoundStart(7, Model(np.zeros(SIZE, np.float32), 1.0).to_bytes()))
    session._take(RoundEnd(7, (2, 3)))
    session._take(DecryptionRequest(7, 1, (2, 3), (1, 2), b"c1"))
    assert not session.admitted
    said = [codec.decode(payload, 1) for payload in sink.sent]
    assert [type(message) for message in said] == [Join, Refusal]
