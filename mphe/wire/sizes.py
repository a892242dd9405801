"""How long messages become, by who sends them and when."""

from __future__ import annotations

from mphe.plan.plan import Plan
from mphe.wire.codec import MAX_TEXT

HEADS = 1 << 20
"""Room for the small fields and lists of any message of the server."""
RECORD_HEAD = 256
INDEX_BYTES = 9
"""Of the longest integer, in a list."""
CLIENT_HEADS = 1 << 12
"""Room for the small fields of any message of a client."""
MAX_METRICS = 1 << 14
"""Bytes that a contribution may carry in clear."""
SEALED_HEAD = 1 << 11
"""Room for the tag, the encapsulation and the head of a sealed share."""


def longest_of_server(plan: Plan, model_bytes: int) -> int:
    """Return the bytes of the server's longest message, when models have so many bytes."""
    element = _element(plan) + RECORD_HEAD
    clients = plan.session.num_clients
    relayed = clients * (2 * element + plan.threshold.blocks * (element + plan.proof_bytes))
    return max(relayed, plan.upload_bytes, model_bytes) + HEADS


def longest_of_client(plan: Plan, is_open: bool) -> int:
    """Return the bytes of the longest message of an honest client.

    Args:
        plan: of the session.
        is_open: whether the key exists; in the set-up clients deal shares of it.
    """
    unopened = plan.session.num_clients * INDEX_BYTES
    rounds = plan.upload_bytes + MAX_METRICS, plan.session.max_groups * plan.share_bytes
    setup = _reveal(plan), _element(plan)
    return max(*(rounds if is_open else setup), unopened, MAX_TEXT) + CLIENT_HEADS


def _reveal(plan: Plan) -> int:
    """Return the bytes of a key share, its proof, and a sealed share for each decryptor."""
    sealed = _element(plan) + SEALED_HEAD
    return _element(plan) + plan.proof_bytes + plan.session.decryptors * sealed


def _element(plan: Plan) -> int:
    ring = plan.threshold.ring
    return ring.degree * ring.bits // 8
