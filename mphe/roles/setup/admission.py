"""Admission of a client that joins after the set-up (docs/protocol.md, Setup).

It only needs the public key. It checks everything that those who were there checked, and wants
as many signatures on T as they did: no two keys have so many.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mphe.arithmetic.ring import Ring
from mphe.errors import RemoteProtocolError
from mphe.plan.plan import Plan
from mphe.roles.setup import common as setup
from mphe.roles.setup.common import Identities, SessionKeys
from mphe.scheme.sharing import sharing_of
from mphe.wire.messages import SERVER, Commit, Join, Ready, Reveal, Vouch, Welcome


def compose(
    joins: tuple[Join, ...],
    commits: tuple[Commit, ...],
    reveals: Sequence[Reveal],
    ready: Mapping[int, Ready],
    holders: Iterable[int],
    decryptors: tuple[int, ...],
) -> Welcome:
    """Return what the server tells a client that joins later."""
    return Welcome(
        joins,
        commits,
        tuple(message.reveal for message in reveals),
        vouches(ready, holders),
        decryptors,
    )


def vouches(ready: Mapping[int, Ready], holders: Iterable[int]) -> tuple[Vouch, ...]:
    """Return the signatures on T of those who are asked to decrypt."""
    return tuple(Vouch(index, ready[index].signature) for index in holders)


def admit(plan: Plan, identities: Identities, index: int, welcome: Welcome) -> SessionKeys:
    """Return the keys of a contributor that holds no share.

    Raises:
        RemoteProtocolError: something is not what the clients on the roster signed.
    """
    parameters, ring = plan.session, Ring(plan.threshold.ring)
    joined = [join.index for join in welcome.joins]
    committed = [commit.index for commit in welcome.commits]
    qualified = tuple(reveal.index for reveal in welcome.reveals)
    setup.check_epoch(welcome.epoch, SERVER)
    for indices in (joined, committed, qualified):
        setup.require_ascending(indices, "a list of the welcome")
    if not set(qualified) <= set(committed) <= set(joined):
        raise RemoteProtocolError(SERVER, "the welcome names clients that did not join")
    sharing = sharing_of(parameters, ring)
    setup.check_enough(sharing, parameters.signatures, qualified)
    epoch = setup.epoch_parts(plan, identities)
    for join in welcome.joins:
        setup.check_join(epoch, identities, join, SERVER)
    digest = setup.joins_digest(identities, welcome.joins)
    session = setup.session_name(epoch, digest)
    for commit in welcome.commits:
        setup.check_commit(identities, session, commit, SERVER)
    commitments = {commit.index: commit.commitment for commit in welcome.commits}
    for reveal in welcome.reveals:
        setup.check_reveal(identities, session, commitments[reveal.index], reveal, SERVER)
    seed = setup.reference_seed(digest)
    reader = setup.KeyShareReader(plan, ring, session, seed)
    shares = [reader.read(reveal, SERVER) for reveal in welcome.reveals]
    key = setup.collective_key(ring, seed, shares)
    name = setup.transcript(session, welcome.commits, qualified, key)
    holders = sharing.holders(qualified)
    setup.check_vouches(identities, holders, welcome.vouches, name, parameters.signatures)
    return SessionKeys(index, plan, name, seed, qualified, key, None, {}, identities)
