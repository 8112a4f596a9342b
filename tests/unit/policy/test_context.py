"""Context-parallel ranks hold every token once, in two chunks, and find them again."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.policy.context import gathered_order, local_index, own_tokens


@given(st.integers(1, 9), st.sampled_from([1, 2, 4]))
def test_the_ranks_hold_every_token_once(chunk: int, size: int) -> None:
    total = 2 * size * chunk
    own = [own_tokens(total, rank, size) for rank in range(size)]
    assert torch.cat(own).sort().values.tolist() == list(range(total))
    for rank, tokens in enumerate(own):
        place = local_index(tokens, total)
        assert torch.equal(place[tokens], torch.arange(len(tokens)))
        assert (place >= 0).sum() == len(tokens) == total // size
        # A chunk near each end: causal attention over one long row costs every rank the same.
        assert tokens.tolist() == [
            *range(rank * chunk, (rank + 1) * chunk),
            *range((2 * size - 1 - rank) * chunk, (2 * size - rank) * chunk),
        ]


@given(st.integers(1, 9), st.sampled_from([1, 2, 4]))
def test_what_is_gathered_from_the_ranks_comes_back_in_order(chunk: int, size: int) -> None:
    total = 2 * size * chunk
    gathered = torch.cat([own_tokens(total, rank, size) for rank in range(size)])
    assert torch.equal(gathered[gathered_order(total, size)], torch.arange(total))
