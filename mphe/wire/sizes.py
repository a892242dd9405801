"""How long messages become."""

from __future__ import annotations

from mphe.plan.plan import Plan

HEADS = 1 << 20
"""Room for the small fields and lists of any message."""
RECORD_HEAD = 256


def longest_message(plan: Plan, model_bytes: int) -> int:
    """Return the bytes of the longest message of a session whose models have so many bytes."""
    ring = plan.threshold.ring
    element = ring.degree * ring.bits // 8 + RECORD_HEAD
    clients = plan.session.num_clients
    relayed = clients * (2 * element + plan.threshold.blocks * (element + plan.proof_bytes))
    return max(relayed, plan.upload_bytes, model_bytes) + HEADS
