"""What a party keeps of a session, as bytes: its keys, its memory, the public session.

The reader is that of the codec: bounded, strict, of exactly these bytes. Whoever stores the bytes
encrypts them; here they are in clear.
"""

from __future__ import annotations

from dataclasses import dataclass

from mphe.arithmetic.ring import Element, Ring
from mphe.errors import EncodingError
from mphe.plan.plan import Plan
from mphe.roles import kept
from mphe.roles.rounds.decryptor import Memory
from mphe.roles.setup.common import Identities, PublicSession, SessionKeys, candidates_digest
from mphe.scheme.rlwe import CollectiveKey, common_reference
from mphe.scheme.sharing import sharing_of
from mphe.wire import codec
from mphe.wire.messages import Draw, Welcome

HASH_BYTES = 32


@dataclass(frozen=True)
class MaskKey:
    """The zero-share key of one peer."""

    peer: int
    key: bytes


@dataclass(frozen=True)
class KeyRecord:
    """SessionKeys without what all parties know."""

    parameters: bytes
    identities: bytes
    index: int
    transcript: bytes
    crs_seed: bytes
    qualified: tuple[int, ...]
    key: bytes
    share: bytes
    mask_keys: tuple[MaskKey, ...]


@dataclass(frozen=True)
class MemoryRecord:
    """A decryptor's memory, bound to its session; rounds from 0 for none yet."""

    transcript: bytes
    rounds: int
    digest: bytes
    attempt: int
    spent: int
    confirming: int
    draw: Draw


@dataclass(frozen=True)
class SessionRecord:
    """PublicSession without what all parties know."""

    parameters: bytes
    identities: bytes
    transcript: bytes
    crs_seed: bytes
    qualified: tuple[int, ...]
    decryptors: tuple[int, ...]
    admitted: tuple[int, ...]
    welcome: Welcome
    key: bytes


def write_keys(keys: SessionKeys) -> bytes:
    """Return the bytes of a client's keys; secret."""
    ring = keys.key.ring
    return codec.pack(
        KeyRecord(
            keys.plan.digest,
            candidates_digest(keys.identities),
            keys.index,
            keys.transcript,
            keys.crs_seed,
            keys.qualified,
            ring.to_bytes(keys.key.key),
            b"" if keys.share is None else ring.to_bytes(keys.share),
            tuple(MaskKey(peer, keys.mask_keys[peer]) for peer in sorted(keys.mask_keys)),
        )
    )


def read_keys(data: bytes, plan: Plan, identities: Identities, index: int) -> SessionKeys:
    """Read `write_keys`.

    Raises:
        EncodingError: these are no keys of this client, under these parameters and identities.
    """
    record = codec.unpack(data, KeyRecord)
    _check_common(plan, identities, record)
    member = index in record.qualified
    if record.index != index or (record.share and not member):
        raise EncodingError("the keys are of another client")
    ring = Ring(plan.threshold.ring)
    holders = sharing_of(plan.session, ring).holders(record.qualified) if record.share else []
    others = [i for i in holders if i != index]
    if [mask.peer for mask in record.mask_keys] != others:
        raise EncodingError("the mask keys are not those of the other clients")
    for mask in record.mask_keys:
        _check_length(mask.key, "a mask key")
    return SessionKeys(
        index=index,
        plan=plan,
        transcript=record.transcript,
        crs_seed=record.crs_seed,
        qualified=record.qualified,
        key=_collective_key(ring, record.crs_seed, record.key),
        share=_element(ring, record.share) if record.share else None,
        mask_keys={mask.peer: mask.key for mask in record.mask_keys},
        identities=identities,
    )


def write_memory(memory: Memory, transcript: bytes) -> bytes:
    """Return the bytes of what a decryptor must not forget."""
    return codec.pack(
        MemoryRecord(
            transcript,
            memory.round + 1,
            memory.digest,
            memory.attempt,
            memory.spent,
            int(memory.confirming),
            memory.draw,
        )
    )


def read_memory(data: bytes, transcript: bytes) -> Memory:
    """Read `write_memory`; EncodingError when it is of another session."""
    record = codec.unpack(data, MemoryRecord)
    if record.transcript != transcript:
        raise EncodingError("the journal is of another session")
    answered = record.rounds > 0
    if len(record.digest) != (HASH_BYTES if answered else 0) or record.confirming > 1:
        raise EncodingError("the journal makes no sense")
    return Memory(
        record.rounds - 1,
        record.digest,
        record.attempt,
        record.spent,
        bool(record.confirming),
        record.draw,
    )


def write_session(session: PublicSession) -> bytes:
    """Return the bytes of what the server holds after the set-up; nothing of it is secret."""
    return codec.pack(
        SessionRecord(
            session.plan.digest,
            candidates_digest(session.identities),
            session.transcript,
            session.crs_seed,
            session.qualified,
            session.decryptors,
            session.admitted,
            session.welcome,
            session.key.ring.to_bytes(session.key.key),
        )
    )


def read_session(data: bytes, plan: Plan, identities: Identities) -> PublicSession:
    """Read `write_session`.

    Raises:
        EncodingError: this is no session under these parameters and identities.
    """
    record = codec.unpack(data, SessionRecord)
    _check_common(plan, identities, record)
    for indices in (record.decryptors, record.admitted):
        kept.read_indices(indices, plan.session.num_clients)
    return PublicSession(
        plan=plan,
        transcript=record.transcript,
        crs_seed=record.crs_seed,
        qualified=record.qualified,
        decryptors=record.decryptors,
        welcome=record.welcome,
        admitted=record.admitted,
        identities=identities,
        key=_collective_key(Ring(plan.threshold.ring), record.crs_seed, record.key),
    )


def _check_common(plan: Plan, identities: Identities, record: KeyRecord | SessionRecord) -> None:
    """Raise EncodingError unless what all parties know is the same, and the rest has its form."""
    if record.parameters != plan.digest:
        raise EncodingError("it was written with other flags")
    if record.identities != candidates_digest(identities):
        raise EncodingError("it was written with other identities or another roster")
    _check_length(record.transcript, "the session's name")
    _check_length(record.crs_seed, "the reference seed")
    kept.read_indices(record.qualified, plan.session.num_clients)


def _check_length(data: bytes, what: str) -> None:
    if len(data) != HASH_BYTES:
        raise EncodingError(f"{what} has {len(data)} bytes where {HASH_BYTES} belong")


def _element(ring: Ring, data: bytes) -> Element:
    return ring.from_bytes(data, ring.degree)


def _collective_key(ring: Ring, crs_seed: bytes, data: bytes) -> CollectiveKey:
    return CollectiveKey(ring, common_reference(ring, crs_seed), _element(ring, data))
