"""Context-parallel ranks hold every token once, each row's in two chunks, and find them again."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.policy.context import gathered_order, local_index, own_tokens


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.sampled_from([1, 2, 4]))
def test_the_ranks_hold_every_token_once(chunks: list[int], size: int) -> None:
    starts = torch.tensor([0, *(2 * size * chunk for chunk in chunks)]).cumsum(0)
    own = [own_tokens(starts, rank, size) for rank in range(size)]
    assert torch.cat(own).sort().values.tolist() == list(range(int(starts[-1])))
    for rank, tokens in enumerate(own):
        place = local_index(tokens, int(starts[-1]))
        assert torch.equal(place[tokens], torch.arange(len(tokens)))
        assert (place >= 0).sum() == len(tokens) == int(starts[-1]) // size
        # A chunk near each end of every row: causal attention costs every rank the same.
        row, chunk = tokens[: 2 * chunks[0]], chunks[0]
        assert row.tolist() == [
            *range(rank * chunk, (rank + 1) * chunk),
            *range((2 * size - 1 - rank) * chunk, (2 * size - rank) * chunk),
        ]


def test_what_is_gathered_from_the_ranks_comes_back_in_order() -> None:
    starts = torch.tensor([0, 8, 24])
    gathered = torch.cat([own_tokens(starts, rank, 2) for rank in range(2)])
    assert torch.equal(gathered[gathered_order(starts, 2)], torch.arange(24))
