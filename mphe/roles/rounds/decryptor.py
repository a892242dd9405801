"""A client's part in decryption, and what it refuses (docs/protocol.md, A round)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mphe.arithmetic.ring import Ring, Spectrum
from mphe.arithmetic.sampling import RandomSource
from mphe.errors import (
    EncodingError,
    ParameterError,
    RefusedDecryption,
    RemoteProtocolError,
    UnexpectedSender,
)
from mphe.roles.machine import Output, Send
from mphe.roles.setup import confirmation
from mphe.roles.setup.common import SessionKeys
from mphe.roles.verified.evidence import Verifier
from mphe.scheme import decryption, partition
from mphe.scheme.decryption import Request
from mphe.scheme.sharing import sharing_of
from mphe.wire.messages import (
    SERVER,
    UNDIVIDED,
    DecryptionRequest,
    DecryptionShare,
    Draw,
    Group,
    Message,
)


@dataclass(frozen=True)
class Answered:
    """The last aggregate that was answered for; a decryptor never forgets it.

    Attributes:
        round: of the aggregate; -1 before the first.
        digest: of its c1 and contributors.
        attempt: the last one.
        request: that attempt, whole.
        answer: the bytes that an exact repeat gets again.
        draw: of the newest groups that were answered for.
    """

    round: int = -1
    digest: bytes = b""
    attempt: int = 0
    request: DecryptionRequest | None = None
    answer: bytes = b""
    draw: Draw = UNDIVIDED


@dataclass(frozen=True)
class Memory:
    """What a decryptor must not forget, even when it is started again.

    Attributes:
        round: of the last aggregate that was answered for; -1 before the first.
        digest: of its c1 and contributors.
        attempt: the last one.
        spent: ciphertexts of the budget.
        confirming: whether the key may still be confirmed.
        draw: of the newest groups that were answered for.
    """

    round: int = -1
    digest: bytes = b""
    attempt: int = 0
    spent: int = 0
    confirming: bool = True
    draw: Draw = UNDIVIDED


Journal = Callable[[Memory], None]
"""Keeps a memory for good before it returns; OSError when it cannot."""


class Decryptor:
    """Answers for one aggregate a round, for at most `max_attempts` active sets."""

    def __init__(
        self,
        keys: SessionKeys,
        source: RandomSource,
        journal: Journal | None = None,
        memory: Memory | None = None,
    ) -> None:
        """Hold a share of the collective secret.

        Args:
            keys: of this client.
            source: of the smudging.
            journal: is told of each answer before the answer is given.
            memory: what the journal was told last, when this client was started again.

        Raises:
            ParameterError: this client has no share.
        """
        if keys.share is None:
            raise ParameterError("this client holds no share of the key, so it cannot decrypt")
        self._keys = keys
        self._share = keys.share
        self._source = source
        self._ring = Ring(keys.plan.threshold.ring)
        self._sharing = sharing_of(keys.plan.session, self._ring)
        self._verifier: Verifier | None = None
        if keys.plan.session.verified:
            self._verifier = Verifier(keys.plan, keys.key, keys.identities)
        memory = memory or Memory()
        self._journal = journal
        # Without the request: an exact repeat is refused, for its answer is gone.
        self._last = Answered(memory.round, memory.digest, memory.attempt, draw=memory.draw)
        self._spent = memory.spent
        self._confirming = memory.confirming
        self._scaled: tuple[tuple[int, ...], Spectrum] | None = None
        self._told: tuple[int, Draw] = (0, UNDIVIDED)

    def told(self, round: int, draw: Draw) -> None:
        """Note the draw of a round as its start told it: no other one is answered for."""
        self._told = (round, draw)

    def end_confirmation(self) -> None:
        """Refuse round 0 from now on: its sums may be of nobody, or of one."""
        self._confirming = False

    @property
    def memory(self) -> Memory:
        """What must outlive this process."""
        last = self._last
        spent, confirming = self._spent, self._confirming
        return Memory(last.round, last.digest, last.attempt, spent, confirming, last.draw)

    def answered(self, round: int) -> int:
        """Return the last attempt of this round that was answered; 0 when none was."""
        return self._last.attempt if self._last.round == round else 0

    def receive(self, sender: int, message: Message) -> list[Output]:
        """Take one message of the server.

        Raises:
            RemoteProtocolError: it is no request, or not of the server; nothing has changed.
            RefusedDecryption: the request breaks the policy; nothing has changed.
        """
        if sender != SERVER:
            raise UnexpectedSender(sender, "only the server asks for decryption")
        if not isinstance(message, DecryptionRequest):
            name = type(message).__name__
            raise RemoteProtocolError(sender, f"{name} is nothing that a decryptor answers")
        return self._on_request(message)

    def _on_request(self, message: DecryptionRequest) -> list[Output]:
        last = self._last
        if message == last.request:
            return [self._share_of(message, last.answer)]
        contributors = self._contributors(message)
        layout = self._keys.plan.threshold_layout(message.round)
        spent = self._spent + layout.blocks * len(message.asked)
        if spent > self._keys.plan.answers:
            raise RefusedDecryption(SERVER, "the decryption budget of this session is spent")
        # First what costs nothing: proofs take milliseconds each.
        self._check_active(message)
        self._check_contributors(message, contributors)
        self._check_attempt(message)
        self._check_groups(message, contributors)
        request = Request(
            self._keys.transcript,
            message.round,
            message.attempt,
            message.active,
            self._c1(message),
            contributors,
            message.draw,
        )
        self._check_freshness(request)
        answer, digest = self._answer(request, message.asked), request.aggregate
        draw, confirming = message.draw, self._confirming
        self._write(Memory(message.round, digest, message.attempt, spent, confirming, draw))
        self._spent = spent
        self._last = Answered(message.round, digest, message.attempt, message, answer, draw)
        return [self._share_of(message, answer)]

    def _share_of(self, message: DecryptionRequest, answer: bytes) -> Send:
        name = self._keys.transcript
        return Send(SERVER, DecryptionShare(message.round, message.attempt, answer, name))

    def _contributors(self, message: DecryptionRequest) -> tuple[int, ...]:
        """Return U; refuse another session's, and groups that nobody agreed to."""
        if message.transcript != self._keys.transcript:
            raise RefusedDecryption(SERVER, "the request is of another session, with another key")
        groups = self._keys.plan.session.max_groups if message.round else 1
        agreed = partition.is_draw(message.draw, groups) and 1 <= len(message.groups) <= groups
        if not agreed:
            raise RefusedDecryption(SERVER, "the request draws groups, which nobody agreed to")
        asked = message.asked
        if list(asked) != sorted(set(asked)) or not asked or asked[-1] >= len(message.groups):
            raise RefusedDecryption(SERVER, "the request asks for groups that it does not have")
        return tuple(sorted(i for group in message.groups for i in group.contributors))

    def _write(self, memory: Memory) -> None:
        """Keep for good what the next answer means, or refuse to give it."""
        if self._journal is None:
            return
        try:
            self._journal(memory)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise RefusedDecryption(
                SERVER, f"this client cannot write down what it answers: {reason}"
            ) from error

    def _check_active(self, message: DecryptionRequest) -> None:
        """Refuse a D that names unknown, duplicate or too few parties."""
        keys, session, active = self._keys, self._keys.plan.session, message.active
        if list(active) != sorted(set(active)):
            raise RefusedDecryption(SERVER, "the active set is not sorted and distinct")
        holders = self._sharing.holders(keys.qualified)
        if not set(active) <= set(holders) or keys.index not in active:
            raise RefusedDecryption(SERVER, "the active set names unknown clients or not this one")
        # Fewer than t members would get an answer without a mask that hides it.
        if len(active) < session.threshold:
            raise RefusedDecryption(
                SERVER, f"{len(active)} decryptors are asked, {session.threshold} are needed"
            )

    def _check_contributors(self, message: DecryptionRequest, contributors: Sequence[int]) -> None:
        """Refuse a U or a group that names unknown, duplicate or too few parties."""
        session = self._keys.plan.session
        if message.round == 0:
            if contributors or not self._confirming:
                raise RefusedDecryption(SERVER, "the key is confirmed once, before all rounds")
            return
        groups = [group.contributors for group in message.groups]
        ascending = all(list(group) == sorted(group) for group in groups)
        distinct = len(set(contributors)) == len(contributors)
        known = all(1 <= index <= session.capacity for index in contributors)
        if not (ascending and distinct and known):
            raise RefusedDecryption(SERVER, "the contributors are not sorted, distinct and known")
        smallest = min(map(len, groups))
        if not session.min_contributors <= smallest <= session.capacity:
            raise RefusedDecryption(
                SERVER,
                f"a sum of {smallest} updates; at least {session.min_contributors} must be in it",
            )

    def _check_groups(self, message: DecryptionRequest, contributors: Sequence[int]) -> None:
        """Refuse other groups than those of the draw, and another draw than was told."""
        session, draw = self._keys.plan.session, message.draw
        if draw.groups == 1:
            return
        round, told = self._told
        same = message.round == round or draw.number == told.number
        if same and partition.announced(draw) != told:
            raise RefusedDecryption(SERVER, "the groups are not by the draw that was told")
        last = self._last.draw
        newest = max(last.number, told.number if message.round > round else 0)
        if draw.number < newest or (draw.number == last.number and draw != last):
            raise RefusedDecryption(SERVER, f"groups by draw {draw.number} after draw {newest}")
        runs = partition.runs(self._keys.transcript, draw, session.num_clients)
        drawn = partition.split(runs, contributors, session.min_contributors)
        if tuple(group.contributors for group in message.groups) != drawn:
            raise RefusedDecryption(SERVER, "the groups are not those of the draw")

    def _c1(self, message: DecryptionRequest) -> bytes:
        """Return what is to be decrypted: derived, added up, or as the server says."""
        try:
            if message.round == 0:
                return self._confirming_c1(message.groups[0])
            if self._verifier is not None:
                return b"".join(self._verifier.add_up(self._keys.transcript, message))
        except EncodingError as error:
            raise RefusedDecryption(SERVER, f"the aggregate is not proven: {error}") from error
        size = decryption.c1_bytes(self._ring, self._keys.plan.threshold)
        for group in message.groups:
            if len(group.c1) != size:
                raise RefusedDecryption(
                    SERVER,
                    f"c1 is malformed: c1 has {len(group.c1)} bytes where {size} belong",
                )
        return b"".join(group.c1 for group in message.groups)

    def _confirming_c1(self, group: Group) -> bytes:
        keys = self._keys
        if group.c1:
            raise EncodingError("nobody chooses what confirms the key")
        _, derived = confirmation.ciphertext(keys.plan, keys.key, keys.transcript)
        return self._ring.to_bytes(derived.c1)

    def _check_attempt(self, message: DecryptionRequest) -> None:
        """Refuse an old round, an old attempt and too many attempts."""
        session, last = self._keys.plan.session, self._last
        if message.round > session.rounds:
            raise RefusedDecryption(SERVER, f"the session has only {session.rounds} rounds")
        if message.round < last.round:
            raise RefusedDecryption(
                SERVER, f"round {message.round} is not newer than round {last.round}"
            )
        limit = session.max_attempts if message.round else session.confirmation_attempts
        if not 1 <= message.attempt <= limit:
            raise RefusedDecryption(SERVER, f"attempt {message.attempt}; at most {limit} a round")

    def _check_freshness(self, request: Request) -> None:
        """Refuse a second aggregate of a round, and an attempt that is not newer."""
        last = self._last
        if request.round == last.round:
            if request.aggregate != last.digest:
                raise RefusedDecryption(
                    SERVER, f"another aggregate of round {request.round} was answered for"
                )
            if request.attempt <= last.attempt:
                raise RefusedDecryption(SERVER, f"attempt {request.attempt} is not newer")

    def _answer(self, request: Request, asked: Sequence[int]) -> bytes:
        """Return h_j for every block of each group that is asked for."""
        keys, active = self._keys, request.active
        mask_keys = {
            peer: (1 if peer > keys.index else -1, keys.mask_keys[peer])
            for peer in active
            if peer != keys.index
        }
        try:
            scaled = self._scaled_share(active)
            return b"".join(
                decryption.gen_share(
                    keys.plan, self._ring, scaled, request, mask_keys, self._source, group
                )
                for group in asked
            )
        except EncodingError as error:
            raise RefusedDecryption(SERVER, f"c1 is malformed: {error}") from error

    def _scaled_share(self, active: tuple[int, ...]) -> Spectrum:
        """Return the transform of λ_j·s_j, kept while the active set stays the same."""
        if self._scaled is None or self._scaled[0] != active:
            keys, share = self._keys, self._share
            additive = self._sharing.additive_share(share, keys.index, active)
            self._scaled = (active, decryption.scaled_share(keys.plan, self._ring, additive))
        return self._scaled[1]
