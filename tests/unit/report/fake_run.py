"""Runs that never happened: trees and metrics as the loop would write them, small and reproducible."""

from pathlib import Path
from typing import Any

import numpy as np

from megatron_trace.report.metrics import calibration_bins, tree_metrics
from megatron_trace.report.metrics_file import MetricsWriter
from megatron_trace.tree import RolloutTree, Turn, save_trees

CITIES = (
    "Lyon",
    "Graz",
    "Porto",
    "Bergen",
    "Leipzig",
    "Turin",
    "Gdansk",
    "Ghent",
    "Malmo",
    "Split",
)


def encode(text: str) -> list[int]:
    """One token per character."""
    return [ord(char) for char in text]


def decode(ids: list[int]) -> str:
    """What `encode` encoded."""
    return "".join(map(chr, ids))


def turn(action: str, observation: str = "", **facts: Any) -> Turn:
    """A sampled turn; log-probabilities and versions are made up."""
    ids = encode(action)
    return Turn(-1, ids, [-0.3] * len(ids), [1] * len(ids), encode(observation), **facts)


def search(query: str, prediction: float | None) -> Turn:
    """A turn that searches."""
    found = f"\n<information> Doc 0(Title: {query}) {query} lies in France , its capital is Paris . </information>\n"
    return turn(
        f"I need the country of {query}. <search> {query}</search>",
        found,
        prediction=prediction,
        state={},
    )


def answer(text: str, reward: float, **facts: Any) -> Turn:
    """A terminal turn that answers."""
    return turn(f"I found it. <answer> {text}</answer>", terminal=True, reward=reward, **facts)


def root(prediction: float | None = 0.5, **task: Any) -> RolloutTree:
    """A tree of only its root."""
    task = {
        "id": "fake/0",
        "question": "What is the capital of the country of Lyon ?",
        "answers": ["Paris"],
    } | task
    return RolloutTree.from_prompt(task, encode(task["question"]), prediction=prediction, state={})


def fake_tree(
    rng: np.random.Generator, skill: float, continuations: int, number: int = 0
) -> RolloutTree:
    """A tree of 4 bare rollouts whose success depends on `skill`, with continuations of one or two
    anchors.
    """
    city = str(rng.choice(CITIES))
    question = f"What is the largest city of the largest neighbour of the country of {city} ?"
    v = float(np.clip(rng.normal(skill, 0.25), 0.03, 0.97))
    tree = root(prediction=v, id=f"fake/{number}", question=question)
    for _ in range(4):
        tree.graft(0, _rollout(rng, city, v, int(rng.integers(1, 4))))
    anchors = rng.choice(tree.prefixes(), size=min(2, len(tree.prefixes())), replace=False)
    for index in range(continuations):
        anchor = int(anchors[index % len(anchors)])
        tree.graft(anchor, _rollout(rng, city, v, int(rng.integers(0, 3))))
    return tree


def _rollout(rng: np.random.Generator, city: str, v: float, searches: int) -> list[Turn]:
    reward = float(rng.random() < v)
    guesses = np.clip(v + rng.normal(0, 0.15, searches), 0.02, 0.98)
    places = [city, *map(str, rng.choice(CITIES, size=max(searches - 1, 0)))][:searches]
    turns = [search(place, float(guess)) for place, guess in zip(places, guesses, strict=True)]
    if reward == 0 and rng.random() < 0.1:
        return [*turns, turn("I am not sure what to", terminal=True, malformed=True)]
    return [*turns, answer("Paris" if reward else str(rng.choice(CITIES)), reward)]


def fake_run(
    run_dir: Path,
    *,
    steps: int = 24,
    continuations: int = 4,
    evaluate: bool = True,
    keep_trees: bool = True,
    config: bool = True,
) -> Path:
    """Write a run whose policy gets better; without continuations it is a uniform one."""
    rng = np.random.default_rng(0)
    run_dir.mkdir(parents=True, exist_ok=True)
    if config:
        strategy = "trace" if continuations else "uniform"
        text = f"run:\n  name: geo_hop_{strategy}\n  steps: {steps}\nallocation:\n  strategy: {strategy}\n"
        (run_dir / "config.yaml").write_text(
            text + "environment:\n  name: search_qa\nmodel:\n  path: start_policy\n"
        )
    with MetricsWriter(run_dir) as writer:
        if evaluate:
            writer.write(_evaluation(rng, 0, 0.0))
        for step in range(1, steps + 1):
            skill = 0.25 + 0.4 * step / steps
            trees = [fake_tree(rng, skill, continuations, number) for number in range(16)]
            if keep_trees:
                save_trees(run_dir / "trees" / f"step_{step:05d}.jsonl.gz", trees)
            writer.write(_row(rng, step, step / steps, trees))
            if evaluate and (step % 6 == 0 or step == steps):
                writer.write(_evaluation(rng, step, step / steps))
    return run_dir


def _evaluation(rng: np.random.Generator, step: int, done: float) -> dict[str, Any]:
    scores = {
        f"heldout_{hops}": 0.9 - 0.2 * hops + 0.25 * done + rng.normal(0, 0.02)
        for hops in (1, 2, 3, 4)
    }
    scores["mean"] = sum(scores.values()) / 4
    facts = {"evaluation_tasks": 512, "evaluation_standard_error": 0.02, "time/evaluation": 12.0}
    return {"step": step, "evaluation": scores, **facts}


def _row(
    rng: np.random.Generator, step: int, done: float, trees: list[RolloutTree]
) -> dict[str, Any]:
    noise = 1 + 0.1 * rng.normal()
    return {
        "step": step,
        "policy_version": step - 1,
        **tree_metrics(trees),
        "calibration": calibration_bins(trees),
        "logprob_gap": 0.004 * noise,
        "entropy": 0.6 - 0.2 * done + 0.02 * noise,
        "gradient_norm": 0.8 * noise,
        "kl_sampler": 0.001 * noise,
        "effective_sample_size": 0.97 - 0.01 * noise,
        "time/roots": 2.0,
        "time/bare rollouts": 21.0 * noise,
        "time/continuations": 14.0 * noise,
        "time/learning": 18.0,
        "time/weights": 1.5,
        "rollouts_per_s": 7.0 * noise,
        "events": ["worker 1 restarted after 30 s without an answer"] if step == 7 else [],
    }
