"""Records as runs would leave them."""

from collections.abc import Sequence

from megatron_trace.compare.record import Record


def record(
    variant: str,
    seed: int,
    success: Sequence[float],
    *,
    budget: int = 64,
    ratio: Sequence[float] = (0.5, 0.5),
    kind: str = "real",
    tokens: float = 100.0,
) -> Record:
    """Evaluated before the first step and after each; every step spends the whole budget."""
    evaluations = range(len(success))
    return Record(
        kind,
        variant,
        budget,
        seed,
        settings={
            "allocation.strategy": variant,
            "run.seed": seed,
            "learning.optimizer.learning_rate": 1e-4,
        },
        steps={
            "rollouts": [budget] * len(ratio),
            "tokens": [tokens] * len(ratio),
            "seconds": [2.0] * len(ratio),
            "effective_ratio": list(ratio),
        },
        evaluations={
            "step": [float(n) for n in evaluations],
            "rollouts": [float(budget * n) for n in evaluations],
            "tokens": [tokens * n for n in evaluations],
            "success": list(success),
        },
        versions={"python": "3.11"},
        host={"cores": 2},
    )


def field(seeds: int = 3) -> list[Record]:
    """Uniform and trace over some seeds; trace comes to uniform's end halfway."""
    found = []
    for seed in range(seeds):
        luck = 0.01 * seed
        found.append(record("uniform", seed, [0.2 + luck, 0.3 + luck, 0.4 + luck]))
        found.append(
            record("trace", seed, [0.2 + luck, 0.4 + luck, 0.5 + 2 * luck], ratio=(1.0, 0.9))
        )
    return found
