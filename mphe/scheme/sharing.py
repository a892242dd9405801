"""How the secret s = Σ s_i is shared, and how an active set D puts it together again.

    s = Σ_D λ_j·share_j

Shamir's sharing over Z_q, coefficient by coefficient (Shamir 1979): any t holders are enough.

    f_i(x) = s_i + A_1·x + … + A_(t-1)·x^(t-1),   share_j = Σ_i f_i(j)
    λ_j = Π_(l in D, l ≠ j) l / (l - j)   mod q

The A_d are uniform in R_q: ternary ones would let one share reveal a ternary secret.

Additive sharing: share_j = s_j and λ_j = 1, so nobody deals anything and everybody is needed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

from mphe.arithmetic.ring import Element, Limbs, Ring, sum_elements
from mphe.arithmetic.sampling import RandomSource, uniform
from mphe.errors import ParameterError
from mphe.plan.agreement import SessionParameters


class Sharing(ABC):
    """Deals shares of a secret, adds up those of many secrets, and weighs them for an active set.

    Attributes:
        ring: the threshold ring.
        min_members: clients that a key must be made of at least.
        deals: whether shares are dealt, so that something is sealed.
    """

    def __init__(self, ring: Ring, min_members: int, *, deals: bool) -> None:
        self.ring = ring
        self.min_members = min_members
        self.deals = deals

    @abstractmethod
    def holders(self, members: Iterable[int]) -> list[int]:
        """Return which of these clients hold a share, in order."""

    @abstractmethod
    def receivers(self, dealer: int, members: Iterable[int]) -> list[int]:
        """Return whom a client seals a share of its secret, or nothing, itself not counted."""

    @abstractmethod
    def dealers(self, holder: int, members: Iterable[int]) -> list[int]:
        """Return who seals a share, or nothing, to a client, itself not counted."""

    @abstractmethod
    def deal(
        self, dealer: int, secret: Element, members: Sequence[int], source: RandomSource
    ) -> dict[int, Element]:
        """Return the share of s_i for each receiver, and for the dealer if it holds one.

        Raises:
            ParameterError: a member's index cannot be a point.
        """

    def aggregate(self, shares: Sequence[Element]) -> Element:
        """Return a holder's share of s: the sum of its shares of all s_i."""
        return aggregate_shares(self.ring, shares)

    @abstractmethod
    def additive_share(self, share: Element, holder: int, active: Sequence[int]) -> Element:
        """Return λ_j·share_j, of which the sum over D is s.

        Raises:
            ParameterError: D has duplicates or impossible members, or the holder is not in it.
        """


class ShamirSharing(Sharing):
    """Any t of the first k clients are enough."""

    def __init__(self, ring: Ring, session: SessionParameters) -> None:
        super().__init__(ring, session.min_contributors, deals=True)
        self._threshold = session.threshold
        self._last_holder = session.decryptors

    def holders(self, members: Iterable[int]) -> list[int]:
        """Return which of these clients hold a share, in order."""
        return [index for index in members if index <= self._last_holder]

    def receivers(self, dealer: int, members: Iterable[int]) -> list[int]:
        """Return all other holders: every client deals to them."""
        return [index for index in self.holders(members) if index != dealer]

    def dealers(self, holder: int, members: Iterable[int]) -> list[int]:
        """Return all others, if this client holds a share at all."""
        return [index for index in members if index != holder and self.holders((holder,))]

    def deal(
        self, dealer: int, secret: Element, members: Sequence[int], source: RandomSource
    ) -> dict[int, Element]:
        """Return f_i(j) for each holder j."""
        return gen_shares(self.ring, secret, self._threshold, self.holders(members), source)

    def additive_share(self, share: Element, holder: int, active: Sequence[int]) -> Element:
        """Return λ_j·share_j."""
        factor = lagrange_coefficient(self.ring.modulus, holder, active)
        return self.ring.multiply_scalar(share, factor)


class AdditiveSharing(Sharing):
    """All n clients are needed, and each keeps its own secret.

    What they seal to each other is nothing but their part of the keys of the masks.
    """

    def __init__(self, ring: Ring, session: SessionParameters) -> None:
        super().__init__(ring, session.num_clients, deals=False)

    def holders(self, members: Iterable[int]) -> list[int]:
        """Return all of them."""
        return list(members)

    def receivers(self, dealer: int, members: Iterable[int]) -> list[int]:
        """Return all others."""
        return [index for index in members if index != dealer]

    def dealers(self, holder: int, members: Iterable[int]) -> list[int]:
        """Return all others."""
        return [index for index in members if index != holder]

    def deal(
        self, dealer: int, secret: Element, members: Sequence[int], source: RandomSource
    ) -> dict[int, Element]:
        """Return s_i itself, for the dealer."""
        return {dealer: secret}

    def additive_share(self, share: Element, holder: int, active: Sequence[int]) -> Element:
        """Return the share, whose λ_j is 1."""
        check_active(holder, active)
        return share


def sharing_of(session: SessionParameters, ring: Ring) -> Sharing:
    """Return how this session shares its secret: with Shamir's scheme if it is to be robust."""
    return ShamirSharing(ring, session) if session.robust else AdditiveSharing(ring, session)


def gen_shares(
    ring: Ring, secret: Element, threshold: int, points: Sequence[int], source: RandomSource
) -> dict[int, Element]:
    """Return f(j) for each point j, each (L, N).

    Raises:
        ParameterError: a point is not positive (f(0) is the secret).
    """
    coefficients = [uniform(source, ring) for _ in range(threshold - 1)]
    return {point: _evaluate(ring, secret, coefficients, point) for point in points}


def _evaluate(ring: Ring, secret: Element, coefficients: Sequence[Element], point: int) -> Element:
    """Return secret + Σ coefficients[d-1]·point^d by Horner's rule."""
    if not 0 < point < 1 << 20:
        raise ParameterError(f"Shamir point {point} is not a client's index")
    value = ring.zero()
    for coefficient in reversed(coefficients):
        value = ring.reduce(Limbs((value + coefficient) * point))
    return ring.reduce(Limbs(value + secret))


def check_active(index: int, active: Sequence[int]) -> None:
    """Raise ParameterError unless an active set D is a set of clients that contains this one."""
    if index not in active or len(set(active)) != len(active) or min(active) < 1:
        raise ParameterError(f"active set {tuple(active)} is not a set that contains {index}")


def lagrange_coefficient(modulus: int, index: int, active: Sequence[int]) -> int:
    """Return λ_j at 0 for the active set D.

    Raises:
        ParameterError: D has duplicates or points that are not positive, or j is not in it.
    """
    check_active(index, active)
    numerator, denominator = 1, 1
    for other in active:
        if other != index:
            numerator = numerator * other % modulus
            denominator = denominator * (other - index) % modulus
    return numerator * pow(denominator, -1, modulus) % modulus


def aggregate_shares(ring: Ring, shares: Sequence[Element]) -> Element:
    """Return the share of the sum of several secrets: the sum of the shares."""
    return ring.reduce(sum_elements(shares))


def reconstruct(sharing: Sharing, shares: Mapping[int, Element]) -> Element:
    """Return the secret from the shares of an active set, (L, N).

    Nobody does this in the protocol: decryptors multiply by λ_j and mask the product. It is what
    t colluding clients can do.
    """
    active = sorted(shares)
    weighted = [sharing.additive_share(shares[index], index, active) for index in active]
    return sharing.ring.reduce(sum_elements(weighted))
