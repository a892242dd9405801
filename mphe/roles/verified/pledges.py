"""A contributor's side of verified aggregates: its c1 is fixed one round ahead."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mphe.arithmetic.ring import Integers
from mphe.arithmetic.sampling import SEED_BYTES, RandomSource
from mphe.errors import EncodingError, LocalProtocolError, RemoteProtocolError
from mphe.roles.verified.evidence import (
    Prover,
    Statement,
    c1_digest,
    check_pledges,
    model_digest,
)
from mphe.scheme.encryptor import Encryptor, Payload, wire_c1
from mphe.scheme.rlwe import Prepared
from mphe.wire.messages import SERVER, NextPledge, Pledge, RoundStart


@dataclass(frozen=True)
class Pledged:
    """What is remembered of pledges: seeds of the u and e1 that it pledged, which serve once.

    Attributes:
        next: of what is contributed next; nothing before the first pledge.
        current: of this round's contribution; nothing once it is made.
        statement: what this round's contribution is bound to; none without `current`.
    """

    next: bytes = b""
    current: bytes = b""
    statement: tuple[Statement, ...] = ()


class PledgedEncryptor:
    """Prepares the c1 of the next round, and proves and signs the one of this round."""

    def __init__(
        self,
        index: int,
        session: bytes,
        encryptor: Encryptor,
        prover: Prover,
        pledged: Pledged | None = None,
    ) -> None:
        """Go on from what was pledged before.

        Args:
            index: of this client.
            session: T.
            encryptor: of this session.
            prover: proves and signs in the name of this client.
            pledged: what a process before this one kept.
        """
        self.pledged = pledged or Pledged()
        self._index = index
        self._session = session
        self._encryptor = encryptor
        self._prover = prover
        self._prepared: dict[bytes, tuple[Prepared, ...]] = {}

    def pledge(self, source: RandomSource) -> NextPledge:
        """Return the digest of what is contributed next; the same until that is listed."""
        if not self.pledged.next:
            self.pledged = replace(self.pledged, next=source.bytes(SEED_BYTES))
        pledge = Pledge(self._index, self._digest(self.pledged.next))
        return NextPledge(pledge, self._session)

    def begin(self, message: RoundStart) -> bool:
        """Return whether the round lists what was pledged; only then it may be contributed.

        Raises:
            RemoteProtocolError: the list is malformed.
        """
        try:
            check_pledges(message.pledges, self._encryptor.plan.session.num_clients)
        except EncodingError as error:
            raise RemoteProtocolError(SERVER, str(error)) from error
        digest, seed = model_digest(message.model), self.pledged.next
        statement = Statement(self._session, message.round, digest, message.pledges, message.draw)
        listed = bool(seed) and statement.pledged(self._index) == self._digest(seed)
        self.pledged = Pledged(b"", seed, (statement,)) if listed else Pledged(seed)
        return listed

    def encrypt(self, values: Integers, source: RandomSource) -> Payload:
        """Return the payload of an update, with its proof."""
        statement, seed = self._require()
        prepared = self._prepare(seed)
        payload = self._encryptor.encrypt(values, source, prepared)
        return replace(payload, proof=self._prover.prove(statement, prepared, source))

    def statement_digest(self) -> bytes:
        """Return the digest of what this round's contribution is bound to.

        Raises:
            LocalProtocolError: this round does not list what was pledged.
        """
        return self._require()[0].digest()

    def sign(self, c1: bytes) -> bytes:
        """Return the signature that goes with this round's c1, and forget its randomness."""
        statement, seed = self._require()
        signature = self._prover.sign(statement, c1)
        self.pledged = Pledged(self.pledged.next)
        self._prepared.pop(seed, None)
        return signature

    def _require(self) -> tuple[Statement, bytes]:
        if not self.pledged.statement:
            raise LocalProtocolError("this round does not list what this client pledged")
        return self.pledged.statement[0], self.pledged.current

    def _prepare(self, seed: bytes) -> tuple[Prepared, ...]:
        """Return u, e1 and c1 of a seed; computed once for each."""
        prepared = self._prepared.get(seed) or self._encryptor.prepare(RandomSource(seed))
        wanted = {self.pledged.next, self.pledged.current} - {seed}
        kept = {other: half for other, half in self._prepared.items() if other in wanted}
        # Replaced as a whole: encryption may run beside `receive`, in another thread.
        self._prepared = kept | {seed: prepared}
        return prepared

    def _digest(self, seed: bytes) -> bytes:
        return c1_digest(self._session, wire_c1(self._encryptor.ring, self._prepare(seed)))
