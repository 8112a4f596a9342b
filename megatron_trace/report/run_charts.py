"""The charts of a run's report."""

from megatron_trace.report.bar_chart import Layer, stacked_bars
from megatron_trace.report.history import WINDOW, History
from megatron_trace.report.line_chart import Series, line_chart
from megatron_trace.report.reliability_chart import Group, reliability_chart

SMALL_WIDTH, SMALL_HEIGHT = 369.0, 220.0

LEAST_PHASE_SHARE = 0.005
"""Phases that take less of a run's time are not drawn."""

SET_COLORS = (
    "var(--teal)",
    "var(--orange)",
    "var(--violet)",
    "var(--rose)",
    "var(--good)",
    "var(--bare)",
)
PHASE_COLORS = (
    "var(--bare)",
    "var(--blue)",
    "var(--orange)",
    "var(--violet)",
    "var(--teal)",
    "var(--rose)",
)
HEALTH = (
    ("Log-probability gap, sampler to trainer", "logprob_gap"),
    ("Entropy, nats per token", "entropy"),
    ("Gradient norm", "gradient_norm"),
    ("KL, trainer to sampler", "kl_sampler"),
    ("Effective sample size", "effective_sample_size"),
    ("Malformed turns", "malformed_share"),
    ("Rollouts that failed in the environment", "failed_rollouts"),
    ("Calls of tools that failed", "tool_errors"),
)
"""(title, metric) of the small charts."""


def training_charts(history: History) -> list[str]:
    """What training changed."""
    return [evaluation_chart(history), effective_ratio_chart(history)]


def budget_charts(history: History) -> list[str]:
    """Where the budget went."""
    return [
        _budget_chart(history),
        _flip_chart(history),
        _task_chart(history),
        _time_chart(history),
    ]


def predictor_charts(history: History) -> list[str]:
    """How far the predictor can be trusted."""
    return [_calibration_chart(history), _brier_chart(history)]


def health_charts(history: History) -> list[str]:
    """Small charts of what shows that training goes wrong."""
    drawn = []
    for title, metric in HEALTH:
        chart = line_chart(
            title,
            [Series("", *history.series(metric), "var(--teal)")],
            percent=metric == "malformed_share",
            width=SMALL_WIDTH,
            height=SMALL_HEIGHT,
        )
        drawn.append(chart)
    return drawn


def evaluation_chart(history: History) -> str:
    """Held-out success over steps, for each set and their mean."""
    steps = history.evaluation_steps()
    series = []
    for n, name in enumerate(history.evaluation_sets()):
        color = SET_COLORS[n % len(SET_COLORS)]
        series.append(Series(name, steps, history.evaluation(name), color))
    errors = history.evaluation_errors()
    series.append(Series("mean", steps, history.evaluation("mean"), "var(--ink)", error=errors))
    return line_chart("Held-out success", series, percent=True)


def effective_ratio_chart(history: History) -> str:
    """Effective ratio over steps, of whole trees and of their bare rollouts alone, and the share of
    the rollouts that lie in mixed trees.
    """
    whole = _smoothed("whole trees", history, "effective_ratio", "blue")
    bare = _smoothed("bare rollouts", history, "effective_ratio_bare", "bare")
    # A run without continuations has the same line twice.
    series = [whole] if whole.y == bare.y else [whole, bare]
    series.append(_smoothed("rollouts in mixed trees", history, "mixed_share", "teal"))
    title = "Effective ratio: tasks with a success and a failure"
    return line_chart(title, series, percent=True, limits=(0, 1))


def _budget_chart(history: History) -> str:
    steps, bare = history.series("bare_rollouts", 0.0)
    _, continuations = history.series("continuations", 0.0)
    layers = [
        Layer("bare", bare, "var(--bare)"),
        Layer("continuations", continuations, "var(--blue)"),
    ]
    return stacked_bars("Rollouts by stage", steps, layers)


def _flip_chart(history: History) -> str:
    series = [
        _smoothed("observed", history, "continuation_flip_rate", "blue"),
        _dashed("predicted", history, "predicted_flip_rate", "violet"),
        # Of strategies that plan by beliefs.
        _dashed("believed", history, "belief_flip_rate", "orange"),
    ]
    title = "Continuations that end otherwise than their rollout"
    return line_chart(title, series, percent=True)


def _task_chart(history: History) -> str:
    series = [
        _smoothed("success", history, "success_rate", "teal"),
        _smoothed("predicted contrast", history, "mixed_probability", "violet"),
    ]
    title = "Sampled tasks: success and predicted contrast"
    return line_chart(title, series, percent=True)


def _time_chart(history: History) -> str:
    seconds = {name: history.series(f"time/{name}", 0.0)[1] for name in history.phases()}
    total = sum(map(sum, seconds.values()))
    layers: list[Layer] = []
    # Phases that are too short to be seen would only lengthen the legend.
    for name, values in seconds.items():
        if sum(values) > LEAST_PHASE_SHARE * total:
            color = PHASE_COLORS[len(layers) % len(PHASE_COLORS)]
            layers.append(Layer(name, values, color))
    return stacked_bars("Seconds by phase", history.steps(), layers)


def _calibration_chart(history: History) -> str:
    groups = []
    # In a short run the first and the last steps would be the same ones.
    if len(history.rows) >= 2 * WINDOW:
        first = history.calibration(history.rows[:WINDOW])
        groups.append(Group(f"first {WINDOW} steps", first, "var(--orange)"))
    last = history.calibration(history.rows[-WINDOW:])
    groups.append(Group(f"last {WINDOW} steps", last, "var(--violet)"))
    return reliability_chart("Calibration", groups)


def _brier_chart(history: History) -> str:
    series = [
        _smoothed("prefixes", history, "predictor_brier_prefix", "blue"),
        _smoothed("roots", history, "predictor_brier_root", "orange"),
        _dashed("a constant", history, "predictor_brier_constant_prefix", "bare"),
    ]
    return line_chart("Brier score of predictions (lower is better)", series)


def _smoothed(name: str, history: History, metric: str, color: str) -> Series:
    return Series(name, *history.series(metric), f"var(--{color})", window=WINDOW)


def _dashed(name: str, history: History, metric: str, color: str) -> Series:
    return Series(name, *history.series(metric), f"var(--{color})", dashed=True)
