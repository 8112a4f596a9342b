"""Trees for tests, made without a model."""

from hypothesis import strategies as st

from megatron_trace.tree import ROOT, RolloutTree, Turn

PROMPT = [1, 2, 3]


def turn(token: int, *, reward: float | None = None, prediction: float | None = 0.5) -> Turn:
    """A turn of two sampled tokens; terminal with `reward`, or followed by two observed tokens."""
    terminal = reward is not None
    return Turn(
        parent=-1,
        action_ids=[token, token + 1],
        logprobs=[-0.5, -0.25],
        versions=[3, 3],
        observation_ids=[] if terminal else [token + 2, token + 3],
        prediction=None if terminal else prediction,
        terminal=terminal,
        reward=reward or 0.0,
        state=None if terminal else {"turns": token},
    )


def chain(first_token: int, turns: int, reward: float) -> list[Turn]:
    """A rollout of `turns` turns that ends with `reward`."""
    middle = [turn(first_token + 10 * i) for i in range(turns - 1)]
    return [*middle, turn(first_token + 10 * (turns - 1), reward=reward)]


def empty_tree(prediction: float = 0.5, task_id: str = "task") -> RolloutTree:
    """A tree of only its root."""
    return RolloutTree.from_prompt(
        {"id": task_id}, PROMPT, prediction=prediction, state={"turns": 0}
    )


def bare_tree(rewards: list[float], turns: int = 2) -> RolloutTree:
    """A tree of bare rollouts, one for each reward."""
    tree = empty_tree()
    for number, reward in enumerate(rewards):
        tree.graft(ROOT, chain(100 * (number + 1), turns, reward))
    return tree


@st.composite
def grown_trees(draw: st.DrawFn) -> RolloutTree:
    """Trees of bare rollouts with continuations at any of their prefixes, rewards 0, 1 or in
    between.
    """
    rewards = st.sampled_from([0.0, 1.0, 0.25])
    tree = empty_tree(draw(st.floats(0, 1)))
    tree.belief = draw(st.sampled_from([None, (0.25, 1.5)]))
    for number in range(draw(st.integers(1, 4))):
        tree.graft(ROOT, chain(100 * (number + 1), draw(st.integers(1, 4)), draw(rewards)))
    for number in range(draw(st.integers(0, 5))):
        if anchors := tree.prefixes():
            new = chain(1000 * (number + 1), draw(st.integers(1, 3)), draw(rewards))
            tree.graft(draw(st.sampled_from(anchors)), new)
    return tree


@st.composite
def renewed_trees(draw: st.DrawFn) -> RolloutTree:
    """Trees as `grown_trees`, in which some turns begin a new history."""
    tree = draw(grown_trees())
    for turn in tree.turns[1:]:
        if not turn.terminal and draw(st.booleans()):
            # What a thought leaves of a turn: the last sampled token, and what was observed.
            before = tree.history_ids(turn.parent)
            turn.new_history = [*before, *turn.action_ids[1:], *turn.observation_ids]
    return tree


@st.composite
def alike_trees(draw: st.DrawFn) -> RolloutTree:
    """Trees as `grown_trees`, whose rollouts often begin alike."""
    rewards = st.sampled_from([0.0, 1.0, 0.25])
    tree = empty_tree()
    for _ in range(draw(st.integers(1, 4))):
        first = draw(st.sampled_from([100, 200]))
        tree.graft(ROOT, chain(first, draw(st.integers(1, 4)), draw(rewards)))
    for _ in range(draw(st.integers(0, 5))):
        if anchors := tree.prefixes(of_continuations=True):
            first = draw(st.sampled_from([110, 120, 210, 1000]))
            new = chain(first, draw(st.integers(1, 3)), draw(rewards))
            tree.graft(draw(st.sampled_from(anchors)), new)
    return tree
