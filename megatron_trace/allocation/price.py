"""One price for every rollout of a step: what trees are worth, and what a probe may cost.

A mixed tree of m rollouts is worth its effective size (Kish, Survey Sampling, 1965)

    u(m) = m / (1 + (m − 1)·ρ),

the number of rollouts of different tasks that would teach as much; ρ is the correlation of what two
rollouts of one task teach. A tree whose rollouts all ended alike is worth nothing. At a price λ for
a rollout a mixed tree of m rollouts is filled to m*, where u'(m*) = λ, and brings the surplus

    W(m) = max_x u(m + x) − λ·x.

So k rollouts of cost c that make a tree mixed with probability g bring g·W(m + k) − λ·k·c: the
chance of a mixed tree, and of the right to fill it. The price is the one at which the rollouts that
all trees are expected to take, k·c + g·x each, meet the budget.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

LOWEST_PRICE = 1e-6
"""Of a rollout; the first rollout of a tree is worth 1."""


@dataclass(frozen=True)
class Offers:
    """What the next rollouts of each tree may bring, [trees] each.

    Attributes:
        size: rollouts that the tree has.
        mixed: whether it is mixed already.
        probe: rollouts of its next probe.
        cost: of one of them, as a multiple of a bare rollout's.
        chance: probability that the probe makes the tree mixed.
        correlation: ρ of all trees, above 0 and below 1.
    """

    size: Floats
    mixed: NDArray[np.bool_]
    probe: Floats
    cost: Floats
    chance: Floats
    correlation: float

    def gain(self, price: float) -> Floats:
        """Expected surplus of each tree's probe per unit of its cost, less the price, [trees].

        It is −inf for mixed trees.
        """
        after = self.size + self.probe
        full = self._full(after, price)
        surplus = effective_size(full, self.correlation) - price * (full - after)
        paid = self.probe * self.cost
        return np.where(self.mixed, -np.inf, self.chance * surplus / paid - price)

    def demand(self, price: float) -> Floats:
        """Rollouts that each tree is expected to take if it is probed or filled, [trees]."""
        after = np.where(self.mixed, self.size, self.size + self.probe)
        fill = self._full(after, price) - after
        probed = self.probe * self.cost + self.chance * fill
        return np.where(self.mixed, fill, probed)

    def clearing_price(self, budget: float) -> float:
        """The lowest price at which the expected demand is within `budget`, to 1 part in 1,000."""
        # No probe brings more than the whole tree, and no fill more than its rollouts.
        most = (self.size + self.probe) / (self.probe * self.cost)
        dear, cheap = max(1.0, float(most.max())), LOWEST_PRICE
        while dear / cheap > 1.001:
            price = float(np.sqrt(dear * cheap))
            taken = self.mixed | (self.gain(price) > 0)
            if self.demand(price)[taken].sum() <= budget:
                dear = price
            else:
                cheap = price
        return dear

    def _full(self, size: Floats, price: float) -> Floats:
        """Rollouts that a mixed tree of `size` is filled to: u'(m) = (1−ρ) / (1 + (m−1)·ρ)²."""
        rho = self.correlation
        best = 1.0 + (np.sqrt((1.0 - rho) / price) - 1.0) / rho
        return np.maximum(size, best)


def effective_size(count: ArrayLike, correlation: float) -> Floats:
    """u(m) of mixed trees with m rollouts; broadcasts."""
    m = np.asarray(count, dtype=np.float64)
    return m / (1.0 + (m - 1.0) * correlation)
