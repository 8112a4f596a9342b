"""What the predictor learns: online Bayesian logistic regression on the anchors' hidden states.

The read-out's weights w have a normal distribution with mean m and precision P (the inverse
covariance). A step's anchors i, with x_i = (h_i, 1) and backed-up success s_i, change it by
Laplace's approximation (D. Spiegelhalter, S. Lauritzen, Networks 20, 1990, section 5):

    m ← argmin_w ½(w − m)ᵀP(w − m) + Σ_i c_i [log(1 + e^{w·x_i}) − s_i w·x_i]
    P ← P + Σ_i c_i σ_i(1 − σ_i) x_i x_iᵀ,   σ_i = σ(m·x_i)

and then a share f is forgotten, as the policy changes:

    P ← (1 − f)·P + f·P₀

P₀ is diagonal: hidden · mean(h²) / std², with the mean over the first step's anchors, and 1 / std²
for the bias. So before anything is learned w·h and the bias each have the standard deviation `std`,
whatever the width of the policy and the size of its hidden states. The problem is convex. So the
result depends neither on an order of the anchors nor on a learning rate, and layouts of the ranks
that differ in the last digits of h differ in the last digits of w.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from megatron_trace.config import PredictorConfig

NEWTON_STEPS = 30
"""Most steps of Newton's method; it needs 5 to 10."""

TOLERANCE = 1e-9
"""Newton's method ends where its step would lower the loss by less than this share of it."""

CHUNK = 4096
"""Anchors of which the columns are in memory at once, in float64."""

START_STEPS = 10.0
"""A head that comes with the policy counts as if it had learned from this number of steps."""

START_CHANCE = 0.05
"""For that, the head's success probabilities are taken to be at least this far from 0 and 1."""

SMALLEST = 1e-3
"""mean(h²) of a hidden number in P₀ is at least this share of the mean over all of them."""


class ReadOut(NamedTuple):
    """The distribution of the read-out's weights, d = hidden + 1; all float64.

    Attributes:
        mean: m, [d]; the last is the bias.
        precision: P, [d, d].
        floor: the diagonal of P₀, [d]; 0 before the first step.
    """

    mean: Tensor
    precision: Tensor
    floor: Tensor


def unknown(weight: Tensor, bias: Tensor) -> ReadOut:
    """Of a head with `weight` [1, hidden] and `bias` [1], before a step was learned from."""
    mean = torch.cat([weight.detach().flatten(), bias.detach()]).double()
    d = len(mean)
    return ReadOut(mean, mean.new_zeros(d, d), mean.new_zeros(d))


def learned(
    known: ReadOut, hidden: Tensor, target: Tensor, count: Tensor, settings: PredictorConfig
) -> ReadOut:
    """The distribution after a step.

    Args:
        hidden: h of the m anchors, [m, hidden].
        target: s, [m], in [0, 1].
        count: c, [m]: how many outcomes each anchor counts as.
        settings: `prior_std`, of P₀, and `forgetting`.
    """
    mean, precision, floor = known
    target, count = target.double(), count.double()
    if not floor.any():
        floor = _spread(hidden) / settings.prior_std**2
        precision = torch.diag(floor)
        if mean.any():
            # The file of the head says nothing about how sure it is. Where it predicts 0 or 1 it
            # would count as knowing nothing, since outcomes that are certain tell nothing.
            told = _information(mean, hidden, count, START_CHANCE)
            precision = precision + START_STEPS * told
    found = _most_likely(mean, precision, hidden, target, count)
    precision = precision + _information(found, hidden, count)
    forgotten = settings.forgetting
    return ReadOut(found, (1 - forgotten) * precision + forgotten * torch.diag(floor), floor)


def balanced(root: Tensor, rollouts: int) -> Tensor:
    """c of a step's anchors, [m]: roots together count as its rollouts, and so do prefixes.

    A tree has one root and a prefix for every turn. Counted alike, the predictor would learn about
    prefixes almost alone, and stage 1 would suffer. And the prefixes of a rollout share its outcome.

    Args:
        root: which anchors are roots, [m].
        rollouts: of the step.
    """
    roots = int(root.sum())
    of_root, of_prefix = rollouts / max(roots, 1), rollouts / max(len(root) - roots, 1)
    return torch.where(root, of_root, of_prefix).double()


def _columns(hidden: Tensor) -> Tensor:
    """x = (h, 1), float64 [m, d]."""
    return torch.nn.functional.pad(hidden.double(), (0, 1), value=1.0)


def _spread(hidden: Tensor) -> Tensor:
    """hidden · mean(h²) and, for the bias, 1: [d], never 0."""
    parts = [part.double().square().sum(0) for part in hidden.split(CHUNK)]
    square = torch.stack(parts).sum(0) / len(hidden)
    # A number that is 0 in these anchors may not be 0 in others, and would then have no prior.
    square = square.clamp_min(max(SMALLEST * float(square.mean()), 1e-12))
    return torch.cat([len(square) * square, square.new_ones(1)])


def _information(mean: Tensor, hidden: Tensor, count: Tensor, margin: float = 0.0) -> Tensor:
    """Σ c σ(1 − σ) x xᵀ at the weights `mean`, [d, d], with σ at least `margin` from 0 and 1."""
    total = mean.new_zeros(len(mean), len(mean))
    for part, c in zip(hidden.split(CHUNK), count.split(CHUNK), strict=True):
        x = _columns(part)
        chance = torch.sigmoid(x @ mean).clamp(margin, 1.0 - margin)
        total.addmm_(x.T, x * (c * chance * (1.0 - chance))[:, None])
    return total


def _most_likely(
    start: Tensor, precision: Tensor, hidden: Tensor, target: Tensor, count: Tensor
) -> Tensor:
    """argmin of the module's first formula, by Newton's method with halved steps."""

    def logits(weights: Tensor) -> Tensor:
        return torch.cat([_columns(part) @ weights for part in hidden.split(CHUNK)])

    def loss(weights: Tensor, z: Tensor) -> Tensor:
        off = weights - start
        fit = count @ (torch.nn.functional.softplus(z) - target * z)
        return 0.5 * off @ (precision @ off) + fit

    weights, z = start, logits(start)
    value = loss(weights, z)
    for _ in range(NEWTON_STEPS):
        error = count * (torch.sigmoid(z) - target)
        gradient = precision @ (weights - start)
        for part, e in zip(hidden.split(CHUNK), error.split(CHUNK), strict=True):
            gradient = gradient + _columns(part).T @ e
        curvature = torch.linalg.cholesky(precision + _information(weights, hidden, count))
        step = torch.cholesky_solve(gradient[:, None], curvature)[:, 0]
        # Half of it is what the step would lower the loss by, were the loss quadratic.
        decrease = gradient @ step
        if decrease <= TOLERANCE * (1.0 + value.abs()):
            return weights - step
        size = 1.0
        while size > 1e-6:
            tried = weights - size * step
            z = logits(tried)
            lower = loss(tried, z)
            if lower <= value - 0.1 * size * decrease:
                break
            size /= 2.0
        weights, value = tried, lower
    return weights
