"""A contributor's side of verified aggregates: its c1 is fixed one round ahead."""

from __future__ import annotations

from dataclasses import replace

from mphe.arithmetic.ring import Integers
from mphe.arithmetic.sampling import RandomSource
from mphe.errors import EncodingError, LocalProtocolError, RemoteProtocolError
from mphe.roles.verified.evidence import Prover, Statement, c1_digest, check_pledges, model_digest
from mphe.scheme.encryptor import Encryptor, Payload, wire_c1
from mphe.scheme.rlwe import Prepared
from mphe.wire.messages import SERVER, NextPledge, Pledge, RoundStart


class PledgedEncryptor:
    """Prepares the c1 of the next round, and proves and signs the one of this round."""

    def __init__(self, index: int, session: bytes, encryptor: Encryptor, prover: Prover) -> None:
        """Have nothing prepared yet.

        Args:
            index: of this client.
            session: T.
            encryptor: of this session.
            prover: proves and signs in the name of this client.
        """
        self._index = index
        self._session = session
        self._encryptor = encryptor
        self._prover = prover
        self._next: tuple[Prepared, ...] = ()
        self._current: tuple[Statement, tuple[Prepared, ...]] | None = None

    def pledge(self, source: RandomSource) -> NextPledge:
        """Return the digest of what is contributed next; the same until that is listed."""
        self._next = self._next or self._encryptor.prepare(source)
        return NextPledge(Pledge(self._index, self._digest()), self._session)

    def _digest(self) -> bytes:
        return c1_digest(self._session, wire_c1(self._encryptor.ring, self._next))

    def begin(self, message: RoundStart) -> bool:
        """Return whether the round lists what was pledged; only then it may be contributed.

        Raises:
            RemoteProtocolError: the list is malformed.
        """
        try:
            check_pledges(message.pledges, self._encryptor.plan.session.num_clients)
        except EncodingError as error:
            raise RemoteProtocolError(SERVER, str(error)) from error
        digest = model_digest(message.model)
        statement = Statement(self._session, message.round, digest, message.pledges, message.draw)
        self._current = None
        if not self._next:
            return False
        if statement.pledged(self._index) != self._digest():
            return False
        self._current, self._next = (statement, self._next), ()
        return True

    def encrypt(self, values: Integers, source: RandomSource) -> Payload:
        """Return the payload of an update, with its proof."""
        statement, prepared = self._require()
        payload = self._encryptor.encrypt(values, source, prepared)
        return replace(payload, proof=self._prover.prove(statement, prepared, source))

    def sign(self, c1: bytes) -> bytes:
        """Return the signature that goes with this round's c1."""
        return self._prover.sign(self._require()[0], c1)

    def _require(self) -> tuple[Statement, tuple[Prepared, ...]]:
        if self._current is None:
            raise LocalProtocolError("this round does not list what this client pledged")
        return self._current
