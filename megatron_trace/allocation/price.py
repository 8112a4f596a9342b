"""A running price: spends a budget on offers that come one after another, as if all were known beforehand."""

from collections.abc import Sequence

import numpy as np

MEMORY = 4096
"""Offers that are remembered."""


class RunningPrice:
    """Takes the offers that gain the most per cost, from the offers seen so far and how many are still to come.

    With all offers known the best of them are taken down to a price, the gain of the last one the budget pays for
    (the multiplier of Σ cost = budget). Here the offers seen, of the last steps too, stand for those to come: the
    price is their quantile above which as large a share lies as the budget pays for.
    """

    def __init__(self) -> None:
        """Knows no offers: the first ones are all taken."""
        self.seen: list[float] = []

    def take(self, offers: Sequence[float], *, coming: float, affordable: float) -> float:
        """The price now: take offers at or above it.

        Args:
            offers: gains of what is offered now.
            coming: offers still expected after these.
            affordable: offers that what is left of the budget pays for.
        """
        self.seen = [*self.seen, *offers][-MEMORY:]
        share = affordable / max(coming + len(offers), 1e-9)
        return 0.0 if share >= 1.0 else float(np.quantile(self.seen, 1.0 - max(share, 0.0)))
