"""What the prefix cache could have served: prompt tokens that an engine has computed before.

An engine computes keys and values of a token from all tokens before it. So a prompt's beginning is
known if any earlier call, of any rollout of any tree, had the same tokens there.
"""

from array import array
from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np

from megatron_trace.tree import Turn


class ComputedHistories:
    """Token sequences whose keys and values some engine has computed under the current policy."""

    def __init__(self) -> None:
        """Nothing is computed yet."""
        self._sorted: list[bytes] = []

    def add(self, token_ids: Sequence[int]) -> None:
        """All of `token_ids` is computed now."""
        insort(self._sorted, _in_order(token_ids))

    def longest(self, token_ids: Sequence[int]) -> int:
        """How many tokens at the beginning of `token_ids` are computed."""
        sought = _in_order(token_ids)
        place = bisect_left(self._sorted, sought)
        # No other sequence shares more with it than its two neighbours in the order.
        neighbours = self._sorted[max(place - 1, 0) : place + 1]
        return max((_common(sought, other) for other in neighbours), default=0)

    def account(self, history_ids: Sequence[int], turns: Sequence[Turn], *, failed: bool) -> int:
        """Add a rollout.

        Args:
            history_ids: of its anchor.
            turns: what it sampled, one turn a call of the engine.
            failed: a further call was made, whose action the environment did not answer.

        Returns:
            Prompt tokens, over all calls, that were computed before the call. The last token of a
            prompt never counts: the engine needs its pass for the next token's distribution.
        """
        served, path, own = 0, list(history_ids), 0
        calls: list[tuple[int, int]] = []
        for turn in turns:
            calls.append((len(path), own))
            # The token sampled last has been in no pass yet.
            own = len(path) + len(turn.action_ids) - 1
            if turn.new_history is not None:
                served += self._served([*path, *turn.action_ids], calls, own)
                calls, own = [], 0
            path = turn.history_after(path)
        if failed:
            calls.append((len(path), own))
        return served + self._served(path, calls, own)

    def _served(self, path: list[int], calls: list[tuple[int, int]], own: int) -> int:
        """What `account` returns of calls whose prompts are beginnings of `path`.

        Args:
            calls: length of each prompt, and how much of it was computed by the call before.
            own: how much of `path` the last call computed.
        """
        if not calls:
            return 0
        known = self.longest(path)
        last_prompt, _ = calls[-1]
        self.add(path[: max(last_prompt, own)])
        return sum(min(max(known, computed), prompt - 1) for prompt, computed in calls)


def _in_order(token_ids: Sequence[int]) -> bytes:
    """Bytes that are ordered as the token ids are: four for each token, the highest first."""
    ordered = array("I", token_ids)
    ordered.byteswap()
    return ordered.tobytes()


def _common(first: bytes, second: bytes) -> int:
    """Number of tokens with which both begin."""
    tokens = min(len(first), len(second)) // 4
    different = np.flatnonzero(
        np.frombuffer(first, ">u4", tokens) != np.frombuffer(second, ">u4", tokens)
    )
    return int(different[0]) if different.size else tokens
