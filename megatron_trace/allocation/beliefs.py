"""What the allocator believes: predictions, evidence, and how much each is worth, fitted online.

The mean of a prior is σ(s·logit v + s'·logit v' + c), with the prediction v of the anchor and v' of
its task's root (s' = 0 for a root itself). Slopes, shift, concentration and the weight of evidence
are fitted to the last outcomes of anchors that were planned, by log loss. Every outcome is judged
by what was known before it. So choosing anchors for what is known of them does not bias the fit.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, xlog1py, xlogy

from megatron_trace.allocation.belief import Belief, prior
from megatron_trace.allocation.calibration import clipped_logit
from megatron_trace.allocation.evidence import FARTHEST, counts, distances, paths, weights
from megatron_trace.tree import ROOT, Anchor, RolloutTree

Floats = NDArray[np.float64]

WINDOW = 600
"""Outcomes of each kind of anchor that the weights are fitted to."""

START_WEIGHT = 1.0
"""Strength of the pull of the fitted weights towards what they begin with: nats at a distance of 1."""

RETAINED = 0.5
"""Factor on a task's remembered outcomes whenever it is visited again."""


class Worth(NamedTuple):
    """How much what is known of one kind of anchor is worth.

    Attributes:
        log_concentration: ln κ.
        slope, root_slope, shift: s, s' and c of the prior's mean.
        evidence: of prefixes γ, the decay of evidence with distance; of roots the weight of
            outcomes of earlier visits.
    """

    log_concentration: float
    slope: float
    root_slope: float
    shift: float
    evidence: float

    def __call__(self, logits: Floats, known: Floats) -> Belief:
        """Beliefs, [n].

        Args:
            logits: of the anchors' predictions and of their roots', [n, 2].
            known: successes and failures at each distance, [n, 2, FARTHEST + 1]; of roots, those
                of this step and of earlier visits, [n, 2, 2].
        """
        mean = expit(logits @ np.array([self.slope, self.root_slope]) + self.shift)
        start = prior(mean, float(np.exp(self.log_concentration)))
        weighted = known @ weights(self.evidence)[: known.shape[-1]]
        return Belief(start.alpha + weighted[:, 0], start.beta + weighted[:, 1])


START = {"root": Worth(0.0, 1.0, 0.0, 0.0, 0.3), "prefix": Worth(0.0, 0.5, 0.5, 0.0, 0.7)}

BOUNDS = [(-3.0, 4.0), (0.0, 3.0), (0.0, 3.0), (-3.0, 3.0), (0.01, 0.99)]
"""Of the numbers of `Worth`, in their order."""


class _Outcome(NamedTuple):
    """An outcome of an anchor, and what was known before it.

    Attributes:
        logits, known: as `Worth` takes them.
        original: reward of the rollout that added the anchor; 0 of a root.
    """

    logits: list[float]
    known: list[list[float]]
    reward: float
    original: float


class Beliefs:
    """Beliefs about roots and prefixes, and a memory of the tasks' earlier visits."""

    def __init__(self) -> None:
        self._worth = dict(START)
        self._window: dict[str, deque[_Outcome]] = {kind: deque(maxlen=WINDOW) for kind in START}
        self._visits: dict[str, list[float]] = {}

    def roots(self, trees: Sequence[RolloutTree]) -> Belief:
        """What is believed of the trees' roots, [trees]; bare rollouts are outcomes of them."""
        logits = np.array([[_logit(tree, ROOT), 0.0] for tree in trees]).reshape(-1, 2)
        # Continuations tell nothing about the root: their anchors were picked for an outcome.
        known = [np.stack([_bare_outcomes(tree), self._visit(tree)], axis=-1) for tree in trees]
        return self._worth["root"](logits, np.array(known).reshape(-1, 2, 2))

    def prefixes(self, tree: RolloutTree, anchors: list[Anchor]) -> Belief:
        """What is believed of turns of a tree that has rollouts, [anchors]."""
        logits = [[_logit(tree, anchor), _logit(tree, ROOT)] for anchor in anchors]
        found = paths(tree)
        known = []
        for anchor in anchors:
            distance = distances(found, tree.path(anchor))[:, -1]
            known.append(counts(distance, found.reward))
        shape = (len(anchors), 2, FARTHEST + 1)
        return self._worth["prefix"](
            np.array(logits).reshape(-1, 2), np.array(known).reshape(shape)
        )

    def observe(self, trees: Sequence[RolloutTree]) -> None:
        """Learn from a step's trees: how much predictions and evidence are worth; the visits."""
        for tree in trees:
            for kind, outcomes in self._planned(tree).items():
                self._window[kind] += outcomes
        for kind, window in self._window.items():
            if window:
                self._worth[kind] = _fitted(list(window), START[kind], self._worth[kind])
        for tree in trees:
            seen = RETAINED * self._visit(tree) + _bare_outcomes(tree)
            self._visits[str(tree.task["id"])] = seen.tolist()

    def _planned(self, tree: RolloutTree) -> dict[str, list[_Outcome]]:
        """Kind of anchor -> outcomes of the rollouts that were planned at such anchors."""
        found: dict[str, list[_Outcome]] = {kind: [] for kind in START}
        for kind, outcome in _planned_outcomes(tree, self._visit(tree)):
            found[kind].append(outcome)
        return found

    def _visit(self, tree: RolloutTree) -> Floats:
        """Remembered successes and failures of the tree's task, [2]."""
        return np.array(self._visits.get(str(tree.task["id"]), [0.0, 0.0]))

    def metrics(self, trees: Sequence[RolloutTree]) -> dict[str, float]:
        """The weights that the step was planned with, and how good they were.

        `belief_flip_rate` is the share of continuations that were believed to end otherwise than
        the rollout they branch from. Called before `observe`.
        """
        numbers = {}
        continuations = [one for tree in trees for one in self._planned(tree)["prefix"]]
        if continuations:
            logits, known, _, original = _columns(continuations)
            success = self._worth["prefix"](logits, known).mean
            numbers["belief_flip_rate"] = float(np.mean(np.abs(original - success)))
        for kind, worth in self._worth.items():
            numbers[f"belief_concentration_{kind}"] = float(np.exp(worth.log_concentration))
            numbers[f"belief_slope_{kind}"] = worth.slope
        numbers["belief_visit_weight"] = self._worth["root"].evidence
        numbers["belief_decay"] = self._worth["prefix"].evidence
        return numbers

    def state(self) -> dict[str, Any]:
        """What a resumed run must know, as JSON data."""
        return {
            "worth": {kind: list(worth) for kind, worth in self._worth.items()},
            "window": {kind: [list(row) for row in rows] for kind, rows in self._window.items()},
            "visits": self._visits,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        for kind in START:
            self._worth[kind] = Worth(*state["worth"][kind])
            rows = [_Outcome(*row) for row in state["window"][kind]]
            self._window[kind] = deque(rows, maxlen=WINDOW)
        self._visits = {task: list(seen) for task, seen in state["visits"].items()}


def _planned_outcomes(tree: RolloutTree, visit: Floats) -> list[tuple[str, _Outcome]]:
    """Of every rollout its anchor's kind, its outcome, and what was known before it ended."""
    found = paths(tree)
    outcomes = []
    bare = np.zeros(2)
    for number, (turns, depth) in enumerate(zip(found.turns, found.anchor, strict=True)):
        reward = float(found.reward[number])
        if depth == 0:
            known = np.stack([bare, visit], axis=-1)
            logits, original = [_logit(tree, ROOT), 0.0], 0.0
            bare = bare + np.array([reward, 1 - reward])
            kind = "root"
        else:
            distance = distances(found, turns[: depth + 1])[:number, -1]
            known = counts(distance, found.reward[:number])
            logits = [_logit(tree, turns[depth]), _logit(tree, ROOT)]
            original = float(found.reward[tree.turns[turns[depth]].rollout])
            kind = "prefix"
        outcomes.append((kind, _Outcome(logits, known.tolist(), reward, original)))
    return outcomes


def _fitted(window: list[_Outcome], start: Worth, now: Worth) -> Worth:
    """The `Worth` that predicts the window best: log loss, pulled to `start`."""
    logits, known, reward, _ = _columns(window)

    def loss(parameters: Floats) -> float:
        p = Worth(*parameters)(logits, known).mean
        log_likelihood = xlogy(reward, p) + xlog1py(1 - reward, -p)
        pull = START_WEIGHT * float(np.sum((parameters - np.array(start)) ** 2))
        return pull - float(log_likelihood.sum())

    bounds = [limit if value or kind else (0.0, 0.0) for limit, value, kind in _limits(start)]
    best = minimize(loss, np.array(now), method="L-BFGS-B", bounds=bounds).x
    return Worth(*best.tolist())


def _columns(outcomes: list[_Outcome]) -> tuple[Floats, Floats, Floats, Floats]:
    """The fields of `_Outcome`, each as an array whose first dimension is the outcome."""
    logits, known, reward, original = (np.array(column) for column in zip(*outcomes, strict=True))
    return logits, known, reward, original


def _limits(start: Worth) -> list[tuple[tuple[float, float], float, bool]]:
    """Bounds, where each number starts, and whether it is fitted: a root's `root_slope` is not."""
    is_root = start.root_slope == 0.0
    free = [True, True, not is_root, True, True]
    return list(zip(BOUNDS, start, free, strict=True))


def _bare_outcomes(tree: RolloutTree) -> Floats:
    """Successes and failures of the bare rollouts, [2]."""
    bare = [rollout.stage == "bare" for rollout in tree.rollouts]
    reward = [turn.reward for turn in tree.turns if turn.terminal and bare[turn.rollout]]
    return np.array([sum(reward), len(reward) - sum(reward)])


def _logit(tree: RolloutTree, anchor: Anchor) -> float:
    """Logit of an anchor's prediction; 0 where there is none."""
    prediction = tree.turns[anchor].prediction
    return 0.0 if prediction is None else float(clipped_logit(np.array(prediction)))
