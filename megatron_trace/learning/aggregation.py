"""The weight of a token in the loss of an update, whichever rank and micro-batch compute it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from megatron_trace.config import Aggregation, LossConfig
from megatron_trace.learning.rows import Row


def row_weights(
    rows: Sequence[Row], selected: Sequence[int], settings: LossConfig
) -> NDArray[np.float64]:
    """Weight of each learned token of every row in the loss of the update on rows `selected`.

    The loss is Σ_t weight·loss_t. The learned tokens that one rollout sampled are a sequence; it may
    have several rows. With N such tokens in R sequences, the weight of a token in a sequence of n tokens is

    - token: 1/N, the mean over tokens (DAPO, arXiv 2503.14476, eq. 8);
    - sequence: 1/(R·n), the mean over sequences of their token means (GRPO, arXiv 2402.03300, eq.
      3);
    - dr_grpo: 1/(R·dr_grpo_tokens), the same in short and long sequences (Dr. GRPO, arXiv
      2503.20783).

    Returns:
        array of shape [len(rows)]; 0 for rows that are not selected or are filtered, which count in
        no mean.

    Raises:
        ValueError: the aggregation is dr_grpo, and learning.loss.dr_grpo_tokens is not set.
    """
    # The weights divide by the counts of the whole update, before rows are dealt to ranks and
    # micro-batches. So gradients need only be summed, and do not depend on the layout.
    learned = np.zeros(len(rows))
    for index in selected:
        learned[index] = 0 if rows[index].filtered else rows[index].learn.sum()
    learns = learned > 0
    _, rollout = np.unique([row.rollout for row in rows], return_inverse=True)
    of_rollout = np.bincount(rollout, learned)
    lengths, sequences = of_rollout[rollout], (of_rollout > 0).sum()
    weights = np.zeros(len(rows))
    match settings.aggregation:
        case Aggregation.token:
            weights[learns] = 1.0 / max(learned.sum(), 1.0)
        case Aggregation.sequence:
            weights[learns] = 1.0 / (sequences * lengths[learns])
        case Aggregation.dr_grpo:
            if settings.dr_grpo_tokens is None:
                raise ValueError(
                    "learning.loss.aggregation = dr_grpo needs learning.loss.dr_grpo_tokens"
                )
            weights[learns] = 1.0 / (max(sequences, 1) * settings.dr_grpo_tokens)
    return weights


def teaches_policy(row: Row, settings: LossConfig) -> bool:
    """Whether the row gives the policy a gradient: from advantages, or from KL and entropy."""
    # An advantage of 0 gives no gradient. KL and entropy give one at every learned token.
    everywhere = settings.reference_kl != 0 or settings.entropy_bonus != 0
    return not row.filtered and bool(row.advantage.any() or (everywhere and row.learn.any()))
