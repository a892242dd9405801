"""A plan as text for people."""

from __future__ import annotations

from math import ceil, log2, sqrt

from mphe.arithmetic.noise import ERROR_VARIANCE, KEY_VARIANCE, NORMS_EXPONENT, failure_exponent
from mphe.arithmetic.rings import MAX_LOG_Q, RingParameters
from mphe.plan.plan import SMUDGING_KAPPA, Plan, SlotLayout


def describe(plan: Plan) -> str:
    """Return the plan as lines of text for the terminal."""
    session, layout, payload = plan.session, plan.threshold, plan.payload
    decrypted = (
        session.rounds * session.max_attempts * session.max_groups * layout.coefficients
        + session.confirmation_attempts * layout.ring.degree
    )
    lines = {
        "threshold ring": _describe_ring(layout.ring, ERROR_VARIANCE),
        "ciphertexts": f"{layout.blocks} an aggregate, {_describe_slots(layout)}",
        "noise": f"E = 2^{log2(plan.noise):.1f}, smudging σ = 2^{log2(plan.smudging):.1f} "
        f"for {SMUDGING_KAPPA} bits",
        "budget": f"τ = {plan.budget} decryptions, {plan.answers} a decryptor",
        # Rounded up, so that "below" is true.
        "failure": f"below 2^{ceil(failure_exponent(decrypted))} for {decrypted} decrypted "
        f"coefficients, 2^-{NORMS_EXPONENT} for the norms in E",
    }
    if payload is not None:
        lines["payload ring"] = _describe_ring(payload.ring, KEY_VARIANCE)
        lines["bodies"] = f"{payload.blocks} a contribution, {_describe_slots(payload)}"
    lines["upload"] = f"{plan.upload_bytes} bytes, {plan.upload_bytes / session.length:.3f} a value"
    if session.verified:
        lines["proofs"] = f"{plan.proof_bytes} bytes of the upload"
    lines["share"] = f"{plan.share_bytes} bytes"
    if session.max_groups > 1:
        smallest = session.min_contributors
        lines["groups"] = (
            f"at most {session.max_groups} of at least {smallest} contributors each, which "
            f"withstands {smallest - 2} colluding contributors; naming reckons with "
            f"{session.culprits} cheating"
        )
    title = (
        f"{session.encryption}: {session.length} values of {session.value_bits} bits, "
        f"n = {session.num_clients}, t = {session.threshold} of {session.decryptors} decryptors, "
        f"{session.rounds} rounds of at most {session.max_attempts} attempts"
    )
    return "\n".join([title, *(f"  {name:16}{text}" for name, text in lines.items())])


def _describe_ring(ring: RingParameters, variance: float) -> str:
    return (
        f"{ring.name}: N = {ring.degree}, log2 q = {ring.bits} (at most {MAX_LOG_Q[ring.degree]} "
        f"at 128 bits), errors σ = {sqrt(variance):.2f}"
    )


def _describe_slots(layout: SlotLayout) -> str:
    slots = "1 slot" if layout.slots == 1 else f"{layout.slots} slots"
    return f"{slots} of {layout.slot_bits} bits above 2^{layout.noise_bits}"
