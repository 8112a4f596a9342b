"""How far estimates from sampled trees are from the truth: advantages and backups."""

import numpy as np

from megatron_trace.simulate.trees import Floats, Ints

VALUE_BINS = 10
"""Bins of true success probability; a backup's bias is taken in each of them."""


def estimator_error(estimate: Floats, truth: Floats, unit: Ints, group: Ints) -> dict[str, float]:
    """How an advantage estimator errs, in units of the true advantages' root mean square.

    Estimators are normalised in different ways, and a common factor means no more than another
    learning rate. So the factor that fits best, c = Σ ÂA* / ΣA*², is divided out. Then
    E (Â/c − A*)² = bias² + variance, both within groups of equal turns: the same action at the
    same history.

    Args:
        estimate, truth: Â and A*, [n].
        unit: tree of each. Estimates of a group in one tree depend on each other, and count as
            their mean.
        group: which turn of the world it is.

    Returns:
        `scale` c and `cosine` of Â and A* as vectors; only a `scale` of 0 where Â or A* is 0
        everywhere. If there are groups that occur in two trees or more, also `bias` and `deviation`
        (root mean squares) of these groups, with the c and the unit of their turns alone.
    """
    pairs = np.stack([group, unit])
    keys, place = np.unique(pairs, axis=1, return_inverse=True)
    size = np.bincount(place)
    estimated = np.bincount(place, estimate) / size
    true = np.bincount(place, truth) / size
    squares = float(true @ true)
    if squares == 0.0 or not estimated.any():
        return {"scale": 0.0}
    product = estimated @ true
    lengths = np.sqrt((estimated @ estimated) * squares)
    found = {"scale": float(product) / squares, "cosine": float(product / lengths)}
    # Scatter within a group can only be seen where the group occurs in several trees.
    _, place, trees = np.unique(keys[0], return_inverse=True, return_counts=True)
    repeated = trees[place] > 1
    return found | _bias_and_deviation(estimated[repeated], true[repeated], place[repeated])


def _bias_and_deviation(estimated: Floats, true: Floats, group: Ints) -> dict[str, float]:
    """Of estimates [n] in groups of two or more; nothing where no scale can be found."""
    squares, product = float(true @ true), float(estimated @ true)
    if squares == 0.0 or product == 0.0:
        return {}
    mean_square, scale = squares / len(true), product / squares
    _, group, size = np.unique(group, return_inverse=True, return_counts=True)
    mean = np.bincount(group, estimated) / size
    scatter = np.bincount(group, (estimated - mean[group]) ** 2)
    variance = scatter / (size - 1) / scale**2
    error = mean / scale - np.bincount(group, true) / size
    weight = size / size.sum()
    # A group's mean has noise of its own, variance / size, which would count as bias.
    bias = float(weight @ (error**2 - variance / size))
    return {
        "bias": float(np.sqrt(max(bias, 0.0) / mean_square)),
        "deviation": float(np.sqrt(weight @ variance / mean_square)),
    }


def backup_error(estimate: Floats, truth: Floats, unit: Ints) -> dict[str, float]:
    """How backed-up success rates err as targets of the predictor.

    Args:
        estimate, truth: of each anchor, [n].
        unit: tree of each. Errors of one tree depend on each other.

    Returns:
        `slope` of the estimate against the true value (1 where unbiased) and `rmse`; if some tenth
        of the true value has anchors of two trees or more, also `bias`: the root mean square over
        these tenths of the mean error, without the noise of the means. Nothing for fewer than two
        anchors.
    """
    if len(truth) < 2 or truth.std() == 0:
        return {}
    error = estimate - truth
    slope = np.polyfit(truth, estimate, 1)[0]
    mean_square = (error**2).mean()
    found = {"slope": float(slope), "rmse": float(np.sqrt(mean_square))}
    bias = _bias_over_bins(error, truth, unit)
    return found if bias is None else found | {"bias": bias}


def _bias_over_bins(error: Floats, truth: Floats, unit: Ints) -> float | None:
    """Root mean square over tenths of the true value of the mean error; None if none has two trees."""
    tenth = np.minimum((truth * VALUE_BINS).astype(int), VALUE_BINS - 1)
    count = np.bincount(tenth, minlength=VALUE_BINS)
    mean = np.bincount(tenth, error, VALUE_BINS) / np.maximum(count, 1)
    # Anchors of one tree share outcomes. So the noise of a mean is told from the scatter of whole
    # trees: the sum of a tree's deviations is one observation.
    keys, place = np.unique(np.stack([tenth, unit]), axis=1, return_inverse=True)
    of_tree = np.bincount(place, error - mean[tenth])
    scatter = np.bincount(keys[0], of_tree**2, VALUE_BINS)
    trees = np.bincount(keys[0], minlength=VALUE_BINS)
    seen = trees > 1
    if not seen.any():
        return None
    count, trees = count[seen], trees[seen]
    noise = scatter[seen] / count**2 * trees / (trees - 1)
    without_noise = mean[seen] ** 2 - noise
    bias = float(count @ without_noise / count.sum())
    return float(np.sqrt(max(bias, 0.0)))
