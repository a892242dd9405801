"""How long a frame of a session may be."""

from mphe.plan.plan import Plan


def max_frame(plan: Plan, size: int) -> int:
    """Return the longest frame in bytes that any message of a session needs."""
    ring = plan.threshold.ring
    element = ring.degree * ring.bits // 8 + 256
    clients = plan.session.num_clients
    relayed = clients * (2 * element + plan.threshold.blocks * (element + plan.proof_bytes))
    return max(relayed, plan.upload_bytes, 4 * size) + (1 << 20)
