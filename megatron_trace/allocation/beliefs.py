"""Beliefs about the anchors of a step, and the online fit of their parameters.

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

PULL = 1.0
"""Strength of the pull of the fitted weights towards what they begin with: nats at a distance of 1."""

RETAINED = 0.5
"""Factor on a task's remembered outcomes whenever it is visited again."""


class BeliefParameters(NamedTuple):
    """What is fitted of the beliefs of one kind of anchor.

    Attributes:
        log_concentration: ln κ.
        slope, root_slope, shift: s, s' and c of the prior's mean.
        decay: γ, the weight of evidence at distance 1. Of a root, outcomes of this step are at
            distance 0 and those of earlier visits at distance 1.
    """

    log_concentration: float
    slope: float
    root_slope: float
    shift: float
    decay: float

    def __call__(self, logits: Floats, known: Floats) -> Belief:
        """Beliefs, [n].

        Args:
            logits: of the anchors' predictions and of their roots', [n, 2].
            known: successes and failures at each distance, [n, 2, FARTHEST + 1]; of roots, those
                of this step and of earlier visits, [n, 2, 2].
        """
        mean = expit(logits @ np.array([self.slope, self.root_slope]) + self.shift)
        start = prior(mean, float(np.exp(self.log_concentration)))
        weighted = known @ weights(self.decay)[: known.shape[-1]]
        return Belief(start.alpha + weighted[:, 0], start.beta + weighted[:, 1])


START = {
    "root": BeliefParameters(0.0, 1.0, 0.0, 0.0, 0.3),
    "prefix": BeliefParameters(0.0, 0.5, 0.5, 0.0, 0.7),
}

BOUNDS = [(-3.0, 4.0), (0.0, 3.0), (0.0, 3.0), (-3.0, 3.0), (0.01, 0.99)]
"""Of the numbers of `BeliefParameters`, in their order."""


class _Outcome(NamedTuple):
    """An outcome of an anchor, and what was known before it.

    Attributes:
        logits, known: as `BeliefParameters` takes them.
        original: reward of the rollout that added the anchor; 0 of a root.
        first: whether it is the first continuation of its anchor; false of a root.
    """

    logits: list[float]
    known: list[list[float]]
    reward: float
    original: float
    first: bool


class Beliefs:
    """Beliefs about roots and prefixes, and a memory of the tasks' earlier visits."""

    def __init__(self) -> None:
        self._parameters = dict(START)
        self._window: dict[str, deque[_Outcome]] = {kind: deque(maxlen=WINDOW) for kind in START}
        self._visits: dict[str, list[float]] = {}

    def roots(self, trees: Sequence[RolloutTree]) -> Belief:
        """What is believed of the trees' roots, [trees]; bare rollouts are outcomes of them."""
        logits = np.array([[_logit(tree, ROOT), 0.0] for tree in trees]).reshape(-1, 2)
        # Continuations tell nothing about the root: their anchors were picked for an outcome.
        known = [np.stack([_bare_outcomes(tree), self._visit(tree)], axis=-1) for tree in trees]
        return self._parameters["root"](logits, np.array(known).reshape(-1, 2, 2))

    def prefixes(self, tree: RolloutTree, anchors: list[Anchor]) -> Belief:
        """What is believed of turns of a tree that has rollouts, [anchors]."""
        logits = [[_logit(tree, anchor), _logit(tree, ROOT)] for anchor in anchors]
        found = paths(tree)
        known = []
        for anchor in anchors:
            distance = distances(found, tree.path(anchor))[:, -1]
            known.append(counts(distance, found.reward))
        shape = (len(anchors), 2, FARTHEST + 1)
        return self._parameters["prefix"](
            np.array(logits).reshape(-1, 2), np.array(known).reshape(shape)
        )

    def observe(self, trees: Sequence[RolloutTree]) -> None:
        """Learn from a step's trees: how much predictions and evidence are worth; the visits."""
        for tree in trees:
            for kind, outcomes in self._planned(tree).items():
                self._window[kind] += outcomes
        for kind, window in self._window.items():
            if window:
                self._parameters[kind] = _fitted(list(window), START[kind], self._parameters[kind])
        # A task may be twice in a pool that is larger than the data.
        seen: dict[str, Floats] = {}
        for tree in trees:
            task = str(tree.task["id"])
            seen[task] = seen.get(task, RETAINED * self._visit(tree)) + _bare_outcomes(tree)
        self._visits |= {task: counted.tolist() for task, counted in seen.items()}

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
        # Of several continuations of an anchor that were planned together, the later ones are
        # judged by the outcome of the first. That was not known in the plan.
        planned = [one for tree in trees for one in self._planned(tree)["prefix"]]
        first = [one for one in planned if one.first]
        if first:
            logits, known, _, original = _columns(first)
            success = self._parameters["prefix"](logits, known).mean
            numbers["belief_flip_rate"] = float(np.mean(np.abs(original - success)))
        for kind, fitted in self._parameters.items():
            numbers[f"belief_concentration_{kind}"] = float(np.exp(fitted.log_concentration))
            numbers[f"belief_slope_{kind}"] = fitted.slope
        numbers["belief_visit_weight"] = self._parameters["root"].decay
        numbers["belief_decay"] = self._parameters["prefix"].decay
        return numbers

    def state(self) -> dict[str, Any]:
        """What a resumed run must know, as JSON data."""
        return {
            "parameters": {kind: list(fitted) for kind, fitted in self._parameters.items()},
            "window": {kind: [list(row) for row in rows] for kind, rows in self._window.items()},
            "visits": dict(self._visits),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        for kind in START:
            self._parameters[kind] = BeliefParameters(*state["parameters"][kind])
            rows = [_Outcome(*row) for row in state["window"][kind]]
            self._window[kind] = deque(rows, maxlen=WINDOW)
        self._visits = {task: list(seen) for task, seen in state["visits"].items()}


def _planned_outcomes(tree: RolloutTree, visit: Floats) -> list[tuple[str, _Outcome]]:
    """Of every rollout its anchor's kind, its outcome, and what was known before it ended."""
    found = paths(tree)
    outcomes = []
    bare = np.zeros(2)
    continued: set[Anchor] = set()
    for number, (turns, depth) in enumerate(zip(found.turns, found.anchor, strict=True)):
        reward, anchor = float(found.reward[number]), turns[depth]
        logits = [_logit(tree, anchor), 0.0 if anchor == ROOT else _logit(tree, ROOT)]
        if anchor == ROOT:
            # Whether a root is sampled again after a continuation depends on how that ended, which
            # the belief about the root leaves out. So these outcomes would bias the fit.
            if not continued:
                known = np.stack([bare, visit], axis=-1)
                outcome = _Outcome(logits, known.tolist(), reward, original=0.0, first=False)
                outcomes.append(("root", outcome))
            bare = bare + np.array([reward, 1 - reward])
            continue
        distance = distances(found, turns[: depth + 1])[:number, -1]
        known = counts(distance, found.reward[:number])
        original = float(found.reward[tree.turns[anchor].rollout])
        first = anchor not in continued
        outcomes.append(("prefix", _Outcome(logits, known.tolist(), reward, original, first)))
        continued.add(anchor)
    return outcomes


def _fitted(
    window: list[_Outcome], start: BeliefParameters, now: BeliefParameters
) -> BeliefParameters:
    """The `BeliefParameters` that predicts the window best: log loss, pulled to `start`."""
    logits, known, reward, _ = _columns(window)

    def loss(parameters: Floats) -> float:
        p = BeliefParameters(*parameters)(logits, known).mean
        log_likelihood = xlogy(reward, p) + xlog1py(1 - reward, -p)
        pull = PULL * float(np.sum((parameters - np.array(start)) ** 2))
        return pull - float(log_likelihood.sum())

    bounds = list(BOUNDS)
    if start.root_slope == 0.0:
        # A root has no root above it.
        bounds[2] = (0.0, 0.0)
    best = minimize(loss, np.array(now), method="L-BFGS-B", bounds=bounds).x
    return BeliefParameters(*best.tolist())


def _columns(outcomes: list[_Outcome]) -> tuple[Floats, Floats, Floats, Floats]:
    """The fields of `_Outcome`, each as an array whose first dimension is the outcome."""
    columns = zip(*outcomes, strict=True)
    logits, known, reward, original, _ = (np.array(column) for column in columns)
    return logits, known, reward, original


def _bare_outcomes(tree: RolloutTree) -> Floats:
    """Successes and failures of the bare rollouts, [2]."""
    bare = [rollout.stage == "bare" for rollout in tree.rollouts]
    reward = [turn.reward for turn in tree.turns if turn.terminal and bare[turn.rollout]]
    return np.array([sum(reward), len(reward) - sum(reward)])


def _logit(tree: RolloutTree, anchor: Anchor) -> float:
    """Logit of an anchor's prediction; 0 where there is none."""
    prediction = tree.turns[anchor].prediction
    return 0.0 if prediction is None else float(clipped_logit(np.array(prediction)))
