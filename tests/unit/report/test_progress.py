import io

from rich.console import Console

from megatron_trace.report.progress import RunProgress
from megatron_trace.report.run_summary import summary_table
from tests.unit.report.fake_run import fake_run

ROW = {
    "step": 1,
    "success_rate": 0.25,
    "effective_ratio": 0.5,
    "effective_ratio_bare": 0.25,
    "time/learning": 70.0,
}


def run_once(console: Console) -> None:
    with RunProgress(2, console=console) as progress:
        progress.phase("bare rollouts", 4)
        progress.advance(4)
        progress.message("worker [1]\nrestarted")
        progress.step_done({"step": 0, "evaluation": {"easy": 0.5, "mean": 0.5}})
        progress.step_done(ROW)
        progress.phase("learning")
        progress.step_done(ROW | {"step": 2})


def test_a_log_file_gets_one_plain_line_per_step() -> None:
    file = io.StringIO()
    run_once(Console(file=file, width=40))
    lines = file.getvalue().splitlines()
    assert lines[0] == "worker [1] restarted"
    assert lines[1] == "evaluation at step 0: easy 0.500, mean 0.500"
    assert lines[2].startswith(
        "step 1/2 | success 0.250 | effective ratio 0.500 (bare 0.250) | held-out 0.500 at"
    )
    assert lines[3].endswith("1 min 10 s")
    assert len(lines) == 4 and "\x1b" not in file.getvalue()


def test_a_terminal_shows_the_phase_and_keeps_messages() -> None:
    file = io.StringIO()
    run_once(Console(file=file, width=120, force_terminal=True))
    assert (
        "worker [1]" in file.getvalue()
        and "learning" in file.getvalue()
        and "2/2" in file.getvalue()
    )


def test_the_summary_tells_what_was_won_and_spent(tmp_path) -> None:
    console = Console(file=io.StringIO(), width=160)
    console.print(summary_table(fake_run(tmp_path / "run", steps=6)))
    text = console.file.getvalue()
    for part in (
        "held-out success, heldout_4",
        "effective ratio",
        "384",
        "time, learning",
        "time, evaluation",
        "metrics.jsonl",
    ):
        assert part in text
    console.print(summary_table(tmp_path))
