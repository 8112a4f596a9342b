"""What the losses need of a micro-batch."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TokenData:
    """What the losses need of a micro-batch's n learned tokens and m anchors; a dummy has none.

    Attributes:
        advantage: [n].
        sampler_logprob: log-probability under the policy that sampled the token [n].
        old_logprob: under the trainer before its first update on the token [n]; None: the current
            one.
        reference_logprob: under the reference policy [n]; None where there is no reference.
        weight: of the token in the update's loss (`aggregation.row_weights`) [n].
        sequence: number of the token's row within the micro-batch, int64 [n] in 0…sequences − 1.
        sequences: rows of the micro-batch; all of a row's tokens are here.
        turn: number of the token's turn within the micro-batch, int64 [n] in 0…turns − 1.
        turns: number of turns with a learned token.
        target: success rates to predict [m].
    """

    advantage: Tensor
    sampler_logprob: Tensor
    old_logprob: Tensor | None
    reference_logprob: Tensor | None
    weight: Tensor
    sequence: Tensor
    sequences: int
    turn: Tensor
    turns: int
    target: Tensor
