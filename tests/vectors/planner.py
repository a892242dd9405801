"""A second planner, from docs/parameters.md alone: plain Python numbers, nothing of mphe."""

from __future__ import annotations

from math import ceil, floor, log, log2, sqrt
from typing import Any

RINGS = {"key": (4096, 3, 17), "data": (8192, 6, 237), "large": (16384, 13, 435)}
Plan = dict[str, Any]


def norm(variance: float, degree: int) -> float:
    """Return the bound on a norm."""
    x = 162 * log(2)
    return sqrt(variance * (degree + 2 * sqrt(degree * x) + 2 * x))


def noise(s: Plan, degree: int) -> float:
    """Return E."""
    n, capacity, corrupt = (int(s[k]) for k in ("num_clients", "capacity", "max_corrupt"))
    secret, error = norm(n * 2 / 3, degree), norm(n * 21 / 2, degree)
    if not s["verified"]:
        variance = 2 / 3 * error**2 + 21 / 2 * secret**2 + 21 / 2
        return 16 * sqrt(capacity * variance)
    u = corrupt * degree * sqrt(degree) * 2**20 + 2 * norm(capacity * 2 / 3, degree)
    e = corrupt * degree * sqrt(degree) * 2**24 + 2 * norm(capacity * 21 / 2, degree)
    fresh = 2 / 3 * (corrupt * degree * 2**24) ** 2 + 21 / 2 * (corrupt * degree * 2**20) ** 2
    f = 16 * sqrt(capacity * degree * fresh)
    return 2 * (error * u + secret * e + f) + 4 * 16 * sqrt(capacity * 21 / 2)


def can_be_sampled(deviation: float) -> bool:
    """Return whether two to seven parts make up this deviation."""
    rest, low = deviation**2, 4.4 * 2**16
    for part in range(7):
        top = sqrt(rest) / 2 ** (16 * part)
        if part and 2.2 < top <= 2**24:
            return True
        rest -= (low * 2 ** (16 * part)) ** 2
        if rest <= 0:
            return False
    return False


def droppable(room: float, summands: int) -> int:
    """Return the largest d with summands·2^(8d-1) ≤ room."""
    d = 0
    while summands * 2.0 ** (8 * (d + 1) - 1) <= room:
        d += 1
    return d


def spread(slots: int, length: int) -> int:
    return min(slots, max(1, length // 32))


def layout(ring: str, noise_bits: int, slot_bits: int, slots: int, length: int) -> Plan:
    degree, limbs, subtrahend = RINGS[ring]
    named = {"name": ring, "degree": degree, "limbs": limbs, "subtrahend": subtrahend}
    return {
        "ring": named,
        "noise_bits": noise_bits,
        "slot_bits": slot_bits,
        "slots": slots,
        "length": length,
    }


def coefficients(where: Plan) -> int:
    length, slots = int(where["length"]), int(where["slots"])
    return -(-length // slots)


def blocks(where: Plan) -> int:
    degree = int(where["ring"]["degree"])
    return -(-coefficients(where) // degree)


def under_collective_key(s: Plan, ring: str, length: int, bits: int, largest: int) -> Plan | None:
    """Return what this ring can carry; None when it cannot."""
    degree, limbs, _ = RINGS[ring]
    k, t, capacity = s["decryptors"], s["threshold"], s["capacity"]
    sets, bound = k - t + 1, noise(s, degree)
    count = 1
    while True:
        answers = s["rounds"] * s["max_attempts"] * s["max_groups"] * count + sets * (sets + 3) // 2
        budget = max(answers * sets, 1 << 12)
        deviation = 2.0**32 * sqrt(12 * budget * degree) * bound
        delta = ceil(log2(2 * (16 * sqrt(t) * deviation + bound + 4 * deviation)))
        slots = spread((32 * limbs - delta - 6) // bits, length)
        if slots < 1 or largest >= (1 << bits) - 1 or not can_be_sampled(deviation):
            return None
        where = layout(ring, delta, bits, slots, length)
        if blocks(where) <= count:
            break
        count = blocks(where)
    return {
        "threshold": where,
        "payload": None,
        "budget": budget,
        "noise": ceil(1000 * log2(bound)),
        "smudging": ceil(1000 * log2(deviation)),
        "dropped_c0": droppable(2 * deviation / (4 if s["verified"] else 1), capacity),
        "dropped_share": droppable(2 * deviation, t),
        "dropped_body": 0,
    }


def plans(s: Plan) -> list[Plan]:
    """Return what is possible, in the order of the document."""
    capacity, bits = s["capacity"], s["value_bits"] + (s["capacity"] - 1).bit_length()
    if s["encryption"] == "direct":
        largest = capacity * ((1 << s["value_bits"]) - 1)
        found = [under_collective_key(s, ring, s["length"], bits, largest) for ring in RINGS]
        return [plan for plan in found if plan]
    result = []
    for wide in ("data", "large"):
        degree, limbs, _ = RINGS[wide]
        nu = floor(log2(82 * capacity)) + 1 + 6
        slots = spread((32 * limbs - nu) // bits, s["length"])
        nu = min(32 * limbs - slots * bits, 62)
        payload = layout(wide, nu, bits, slots, s["length"])
        largest = 82 * capacity
        for ring in ("key", "data"):
            plan = under_collective_key(s, ring, degree, floor(log2(largest)) + 1, largest)
            if plan:
                body = droppable(2.0 ** (nu - 7) - 41 * capacity, capacity)
                result.append(plan | {"payload": payload, "dropped_body": body})
    return result


def upload(s: Plan, plan: Plan) -> int:
    """Return the bytes of a contribution."""
    where, payload = plan["threshold"], plan["payload"]
    degree, width = where["ring"]["degree"], 4 * where["ring"]["limbs"]
    total: int = blocks(where) * degree * width
    total += coefficients(where) * (width - plan["dropped_c0"])
    if payload:
        rest = 4 * payload["ring"]["limbs"] - plan["dropped_body"]
        total += coefficients(payload) * rest
    if s["verified"]:
        total += blocks(where) * (32 + ceil(128 / log2(2 * degree)) * degree * 20 // 8)
    return total


def best(s: Plan) -> Plan | None:
    """Return the plan of these parameters; None when nothing can carry them."""
    return min(plans(s), key=lambda plan: upload(s, plan), default=None)
