"""`report.html`: what a run did, in one file that needs nothing else, readable in light and dark."""

from collections.abc import Sequence
from pathlib import Path

from megatron_trace.files.atomic import write_text
from megatron_trace.report import charts, tree_drawing
from megatron_trace.report.charts import Series
from megatron_trace.report.exemplars import Exemplar, choose_exemplars
from megatron_trace.report.history import History, read_history
from megatron_trace.report.page import card, figure, grid, page, section
from megatron_trace.report.svg import escape
from megatron_trace.report.tree_drawing import Decode
from megatron_trace.report.words import short

SET_COLORS = (
    "var(--teal)",
    "var(--orange)",
    "var(--violet)",
    "var(--rose)",
    "var(--good)",
    "var(--bare)",
)
_STAGES = (
    "Bare rollouts start at the prompt. Continuations branch from a turn where the predictor disagrees with how "
    "its rollout ended: each is a chance to find a contrast among rollouts that all ended alike."
)
WINDOW = 5
"""Steps of the running means, and of what is called the first and the last of a run."""


def write_report(run_dir: Path | str, *, decode: Decode) -> Path:
    """Write `<run_dir>/report.html` from a run's metrics, settings and trees; what is missing is left out.

    Args:
        run_dir: folder of the run, finished or not.
        decode: text of token ids.

    Returns:
        The path written; the file appears only when it is whole.
    """
    run_dir = Path(run_dir)
    history = read_history(run_dir)
    body = [
        _headline(history),
        section(
            "What training changed", grid(evaluation_chart(history), effective_ratio_chart(history))
        ),
        section(
            "Where the budget went",
            grid(
                _budget_chart(history),
                _flip_chart(history),
                _task_chart(history),
                _time_chart(history),
            ),
            _STAGES if history.total("continuations") else "",
        ),
        section(
            "How far the predictor can be trusted",
            grid(_reliability_chart(history), _brier_chart(history)),
            "It steers the budget and nothing else: no baseline and no reward depends on it.",
        ),
        section("Health", grid(*_health_charts(history), columns=3)),
        _trees(choose_exemplars(run_dir), decode),
        _events(history),
        _settings(history),
    ]
    subtitle = " · ".join(filter(None, [*history.description(), history.progress()]))
    return write_text(run_dir / "report.html", page(history.name, subtitle, "".join(body)))


def evaluation_chart(history: History) -> str:
    """Held-out success over steps, for each set and their mean."""
    steps, errors = history.evaluation_steps(), history.evaluation_errors()
    sets = [
        Series(name, steps, history.evaluation(name), SET_COLORS[n % len(SET_COLORS)])
        for n, name in enumerate(history.evaluation_sets())
    ]
    mean = Series("mean", steps, history.evaluation("mean"), "var(--ink)", error=errors)
    return charts.line_chart("Held-out success", [*sets, mean], percent=True)


def effective_ratio_chart(history: History) -> str:
    """Effective ratio over steps, of whole trees and of their bare rollouts alone."""
    series = [
        Series("whole trees", *history.series("effective_ratio"), "var(--blue)", window=WINDOW),
        Series(
            "bare rollouts", *history.series("effective_ratio_bare"), "var(--bare)", window=WINDOW
        ),
    ]
    same = series[0].y == series[1].y
    title = "Effective ratio: tasks with a success and a failure"
    return charts.line_chart(title, series[:1] if same else series, percent=True, limits=(0, 1))


def _budget_chart(history: History) -> str:
    steps, bare = history.series("bare_rollouts", 0.0)
    _, continuations = history.series("continuations", 0.0)
    parts = [("bare", bare, "var(--bare)"), ("continuations", continuations, "var(--blue)")]
    return charts.stacked_bars("Rollouts by stage", steps, parts)


def _flip_chart(history: History) -> str:
    series = [
        Series("observed", *history.series("continuation_flip_rate"), "var(--blue)", window=WINDOW),
        Series("predicted", *history.series("predicted_flip_rate"), "var(--violet)", dashed=True),
    ]
    return charts.line_chart(
        "Continuations that end otherwise than their rollout", series, percent=True
    )


def _task_chart(history: History) -> str:
    series = [
        Series("success", *history.series("success_rate"), "var(--teal)", window=WINDOW),
        Series(
            "predicted contrast",
            *history.series("mixed_probability"),
            "var(--violet)",
            window=WINDOW,
        ),
    ]
    return charts.line_chart("Sampled tasks: success and predicted contrast", series, percent=True)


def _time_chart(history: History) -> str:
    steps = history.steps()
    parts: list[tuple[str, list[float], str]] = []
    colors = (
        "var(--bare)",
        "var(--blue)",
        "var(--orange)",
        "var(--violet)",
        "var(--teal)",
        "var(--rose)",
    )
    series = {name: history.series(f"time/{name}", 0.0)[1] for name in history.phases()}
    everything = sum(map(sum, series.values()))
    for name, seconds in series.items():
        if sum(seconds) > 0.005 * everything:
            parts.append((name, seconds, colors[len(parts) % len(colors)]))
    return charts.stacked_bars("Seconds by phase", steps, parts)


def _reliability_chart(history: History) -> str:
    early, late = history.calibration(first=WINDOW), history.calibration(last=WINDOW)
    groups = [(f"last {WINDOW} steps", late, "var(--violet)")]
    if len(history.rows) >= 2 * WINDOW:
        groups.insert(0, (f"first {WINDOW} steps", early, "var(--orange)"))
    return charts.reliability("Calibration", groups)


def _brier_chart(history: History) -> str:
    series = [
        Series("prefixes", *history.series("predictor_brier_prefix"), "var(--blue)", window=WINDOW),
        Series("roots", *history.series("predictor_brier_root"), "var(--orange)", window=WINDOW),
        Series(
            "a constant",
            *history.series("predictor_brier_constant_prefix"),
            "var(--bare)",
            dashed=True,
        ),
    ]
    return charts.line_chart("Brier score of predictions (lower is better)", series)


def _health_charts(history: History) -> list[str]:
    rows = [
        ("Log-probability gap, sampler to trainer", "logprob_gap", False),
        ("Entropy, nats per token", "entropy", False),
        ("Gradient norm", "gradient_norm", False),
        ("KL, trainer to sampler", "kl_sampler", False),
        ("Effective sample size", "effective_sample_size", False),
        ("Malformed turns", "malformed_share", True),
    ]
    series = [[Series("", *history.series(key), "var(--teal)")] for _, key, _ in rows]
    return [
        charts.line_chart(title, one, percent=percent, width=369, height=220)
        for (title, _, percent), one in zip(rows, series, strict=True)
    ]


def _headline(history: History) -> str:
    cards = []
    scores, errors = history.evaluation("mean"), history.evaluation_errors()
    if scores:
        gain = (
            f"{100 * (scores[-1] - scores[0]):+.1f} points" if len(scores) > 1 else "one evaluation"
        )
        ends = sorted({0, len(errors) - 1}) if errors else []
        error = " and ".join(dict.fromkeys(f"{100 * errors[n]:.1f}" for n in ends))
        note = f"{gain}; standard error {error}" if error else gain
        cards.append(card("Held-out success", _change(scores), note))
    ratio = history.ends("effective_ratio", WINDOW)
    if ratio:
        bare = history.ends("effective_ratio_bare", WINDOW)
        note = (
            f"bare rollouts alone {bare[0]:.0%} → {bare[1]:.0%}" if bare and bare != ratio else ""
        )
        cards.append(card("Effective ratio", _change(ratio), note))
    bare_spent, continuations = history.total("bare_rollouts"), history.total("continuations")
    if bare_spent + continuations:
        note = f"{bare_spent:,.0f} bare, {continuations:,.0f} continuations"
        cards.append(card("Rollouts", f"{bare_spent + continuations:,.0f}", note))
        tokens = short(history.total("sampled_tokens"))
        cards.append(card("Sampled tokens", tokens, f"in {history.duration()}"))
    return f'<div class="cards">{"".join(cards)}</div>'


def _change(values: Sequence[float]) -> str:
    start = f"{100 * values[0]:.1f} → " if len(values) > 1 else ""
    return f"{start}{100 * values[-1]:.1f} %"


def _trees(exemplars: Sequence[Exemplar], decode: Decode) -> str:
    if not exemplars:
        return ""
    figures = [
        figure(tree_drawing.svg(one.tree, decode), f"Step {one.step}. {one.why}", wide=True)
        for one in exemplars
    ]
    text = "Straight lines are bare rollouts, what hangs below a turn continues it. Hover over one to read it."
    return section("Trees", "".join(figures), text)


def _events(history: History) -> str:
    rows = "".join(
        f"<tr><td>{step}</td><td>{escape(text)}</td></tr>" for step, text in history.events()
    )
    table = f'<table class="events"><tr><th>step</th><th>what happened</th></tr>{rows}</table>'
    return section("Events", table) if rows else ""


def _settings(history: History) -> str:
    if not history.config_text:
        return ""
    text = f"<pre>{escape(history.config_text)}</pre>"
    return section("Settings", f"<details><summary>config.yaml</summary>{text}</details>")
