"""What the predictor learns: online Bayesian logistic regression on the anchors' hidden states.

The read-out's weights w have a normal distribution with mean m and precision P (the inverse
covariance). A step's anchors i, with x_i = (h_i, 1) and backed-up success s_i, change it by
Laplace's approximation (D. Spiegelhalter, S. Lauritzen, Networks 20, 1990, section 5):

    m ← argmin_w ½(w − m)ᵀP(w − m) + Σ_i c_i [log(1 + e^{w·x_i}) − s_i w·x_i]
    P ← P + Σ_i c_i σ_i(1 − σ_i) x_i x_iᵀ,   σ_i = σ(m·x_i)

and then a share f is forgotten, as the policy changes:

    P ← (1 − f)·P + f·P₀

P₀ is a ridge: diagonal, `ridge` times the mean of x² in the first step. The problem is convex. So
the result depends neither on an order of the anchors nor on a learning rate, and layouts of the
ranks that differ in the last digits of h differ in the last digits of w.
"""

from typing import NamedTuple

import torch
from torch import Tensor

NEWTON_STEPS = 30
"""Most steps of Newton's method; it needs 5 to 10."""

TOLERANCE = 1e-9
"""Newton's method ends where its step would lower the loss by less than this share of it."""

CHUNK = 4096
"""Anchors of which the columns are in memory at once, in float64."""

START_STEPS = 10.0
"""A head that comes with the policy counts as if it had learned from so many steps like the first."""


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
    known: ReadOut, hidden: Tensor, target: Tensor, count: Tensor, ridge: float, forgetting: float
) -> ReadOut:
    """The distribution after a step.

    Args:
        hidden: h of the m anchors, [m, hidden].
        target: s, [m], in [0, 1].
        count: c, [m]: how many outcomes each anchor counts as.
        ridge, forgetting: of P₀, and f.
    """
    mean, precision, floor = known
    target, count = target.double(), count.double()
    if not floor.any():
        floor = ridge * _mean_square(hidden)
        precision = torch.diag(floor)
        if mean.any():
            # The file of the head says nothing about how sure it is.
            precision = precision + START_STEPS * _information(mean, hidden, count)
    found = _most_likely(mean, precision, hidden, target, count)
    precision = precision + _information(found, hidden, count)
    kept = (1.0 - forgetting) * precision + forgetting * torch.diag(floor)
    return ReadOut(found, kept, floor)


def balanced(root: Tensor) -> Tensor:
    """c of a step's anchors, [m], which sums to m: half of it for roots, half for prefixes.

    A tree has one root and a prefix for every turn. Counted alike, the predictor would learn about
    prefixes almost alone, and stage 1 would suffer.

    Args:
        root: which anchors are roots, [m].
    """
    count = torch.ones(len(root), dtype=torch.float64, device=root.device)
    roots = int(root.sum())
    if 0 < roots < len(root):
        count[root] = len(root) / (2.0 * roots)
        count[~root] = len(root) / (2.0 * (len(root) - roots))
    return count


def _columns(hidden: Tensor) -> Tensor:
    """x = (h, 1), float64 [m, d]."""
    return torch.nn.functional.pad(hidden.double(), (0, 1), value=1.0)


def _mean_square(hidden: Tensor) -> Tensor:
    """Mean of x² over the anchors, [d]; never 0."""
    square = sum(_columns(part).square().sum(0) for part in hidden.split(CHUNK))
    return (square / len(hidden)).clamp_min(1e-12)


def _information(mean: Tensor, hidden: Tensor, count: Tensor) -> Tensor:
    """Σ c σ(1 − σ) x xᵀ at the weights `mean`, [d, d]."""
    total = mean.new_zeros(len(mean), len(mean))
    for part, c in zip(hidden.split(CHUNK), count.split(CHUNK), strict=True):
        x = _columns(part)
        chance = torch.sigmoid(x @ mean)
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
