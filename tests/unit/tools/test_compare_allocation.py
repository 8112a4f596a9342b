"""The tool from the command line, with a program that only writes what a run writes."""

import json
import sys
from pathlib import Path

import pytest

from megatron_trace.compare import program_job, runner
from megatron_trace.compare.sweep import trial_config

ROOT = Path(__file__).parents[3]
PROGRAM = """
import json, sys
from pathlib import Path
run_dir, budget, total, better, limit = Path(sys.argv[1]), *map(int, sys.argv[2:])
run_dir.mkdir(parents=True, exist_ok=True)
with open(run_dir / "metrics.jsonl", "a+") as file:
    write = lambda row: file.write(json.dumps(row) + chr(10))
    file.seek(0)
    done = len(file.readlines()) // 2
    print("goes on after step", done)
    if done == 0:
        write({"step": 0, "evaluation": {"mean": 0.3}})
    for step in range(done + 1, total // budget + 1):
        if step > limit:
            print("the last words")
            sys.exit(1)
        spent = {"bare_rollouts": budget, "continuations": 0, "sampled_tokens": 100, "time/learning": 1.0}
        write({"step": step, "effective_ratio": 0.5} | spent)
        write({"step": step, "evaluation": {"mean": 0.3 + (0.1 + 0.05 * better) * step}})
(run_dir / "policy").mkdir()
"""


@pytest.fixture
def compare(load_tool, geo_hop, monkeypatch, tmp_path):
    """The tool in a folder with data; runs break after `limits[variant]` steps."""
    tool = load_tool("compare_allocation")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "geo_hop").symlink_to(geo_hop)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "POLL_S", 0.01)
    tool.limits, tool.started = {}, []

    def command(trial, sweep):
        tool.started.append(trial.name)
        config = trial_config(trial, sweep)
        numbers = (
            trial.budget,
            config.run.rollouts,
            trial.variant.name != "uniform",
            tool.limits.get(trial.variant.name, 99),
        )
        return [
            sys.executable,
            "program.py",
            str(sweep.run_dir(trial)),
            *(str(int(n)) for n in numbers),
        ]

    monkeypatch.setattr(program_job, "command", command)
    config = str(ROOT / "configs" / "geo_hop_cpu.yaml")
    tool.run_tool = lambda *arguments: tool.main(["--config", config, "--out", "out", *arguments])
    return tool


GRID = ("--strategies", "uniform", "trace", "--seeds", "0-1", "--budgets", "64", "--total", "192")


def test_a_grid_becomes_results_a_table_and_a_page(compare, capsys) -> None:
    assert compare.run_tool(*GRID) == 0
    assert compare.started == ["uniform-b64-s0", "trace-b64-s0", "uniform-b64-s1", "trace-b64-s1"]
    result = json.loads(Path("out/results/trace-b64-s1.json").read_text())
    assert result["evaluations"]["rollouts"] == [0, 64, 128, 192]
    assert result["evaluations"]["success"] == [0.3, 0.45, 0.6, 0.75]
    assert "+15.0" in capsys.readouterr().out
    assert "Allocation at equal cost" in Path("out/comparison.html").read_text()
    assert not list(Path("out/runs").glob("*/policy"))


def test_a_trial_that_broke_goes_on_where_it_stood_and_no_other_is_run_again(
    compare, capsys
) -> None:
    compare.limits["trace"] = 1
    assert compare.run_tool(*GRID) == 1
    said = capsys.readouterr()
    assert "trace-b64-s0 failed: exit code 1" in said.err and "the last words" in said.err
    compare.limits.clear()
    compare.started.clear()
    assert compare.run_tool(*GRID) == 0
    assert compare.started == ["trace-b64-s0", "trace-b64-s1"]
    assert "goes on after step 1" in Path("out/logs/trace-b64-s0.log").read_text()
    compare.started.clear()
    assert compare.run_tool(*GRID) == 0 and compare.started == []


def test_later_sittings_add_to_the_same_page(compare) -> None:
    compare.run_tool(*GRID)
    more = ("--variant", "big=allocation.strategy=uniform,allocation.group=16", *GRID[3:])
    assert compare.run_tool(*more) == 0
    page = Path("out/comparison.html").read_text()
    assert "3 variants, 2 seeds" in page and ">big<" in page


def test_the_page_is_remade_from_the_results_alone(compare, tmp_path) -> None:
    compare.run_tool(*GRID)
    compare.started.clear()
    arguments = ("--report-only", "--results", "out/results", "--page", "again.html")
    assert compare.run_tool(*arguments) == 0
    assert compare.started == [] and Path("again.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--strategies = []: name strategies"),
        (["--strategies", "unifrom"], "allocation.strategy = 'unifrom'"),
        (
            ["--strategies", "uniform", "--budgets", "60", "--total", "120"],
            "allocation.budget = 60",
        ),
        (["--strategies", "uniform", "--budgets", "0"], "--budgets = 0: must be positive"),
        (["--strategies", "uniform", "--seeds", "x"], "--seeds = 'x'"),
        (["--strategies", "uniform", "--jobs", "0"], "--jobs = 0: must be positive"),
        (
            ["--strategies", "uniform", "--world", "depth=3"],
            "--world = 'depth=3': belongs to --simulate",
        ),
        (
            ["--strategies", "uniform", "--simulate", "--world", "deph=3"],
            "world.deph = '3': no such knob",
        ),
        (
            ["--strategies", "uniform", "--simulate", "--world", "depth=0"],
            "world.depth = 0: must be",
        ),
        (["--strategies", "uniform", "--", "data.train=nowhere-*.tar"], "data.train"),
        (
            ["--strategies", "uniform", "--", "run.seed=3"],
            "run.seed = 3: give the seeds with --seeds",
        ),
        (
            ["--strategies", "trace"],
            "--baseline = 'uniform': is none of the variants; name one of trace",
        ),
        (["--report-only"], "--results = 'out/results': holds no results"),
    ],
)
def test_a_wrong_command_is_one_line_before_anything_starts(
    compare, capsys, arguments, message
) -> None:
    assert compare.run_tool(*arguments) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("error: ") and said.count("\n") == 1
    assert compare.started == []


def test_results_of_other_runs_are_not_put_beside_these(compare, capsys) -> None:
    compare.run_tool(*GRID)
    compare.started.clear()
    path = Path("out/results/trace-b64-s1.json")
    record = json.loads(path.read_text())
    record["settings"]["run.rollouts"] = 384
    path.write_text(json.dumps(record))
    assert compare.run_tool("--report-only") == 2
    assert "differ in run.rollouts (192 and 384)" in capsys.readouterr().err
    assert compare.run_tool("--strategies", "vip", *GRID[3:]) == 2 and compare.started == []


def test_the_baseline_of_a_page_must_be_among_its_results(compare, capsys) -> None:
    compare.run_tool(*GRID)
    assert compare.run_tool("--report-only", "--baseline", "unifrom") == 2
    assert "name one of trace, uniform" in capsys.readouterr().err


def test_simulations_have_a_folder_of_their_own(compare) -> None:
    folders = [
        compare.parse(arguments)[0].out
        for arguments in ([], ["--simulate"], ["--out", "x", "--simulate"])
    ]
    assert folders == [Path("runs/comparison"), Path("runs/simulation"), Path("x")]


@pytest.mark.slow
def test_in_the_simulator_a_trial_trains_and_is_measured(compare) -> None:
    grid = (
        "--strategies",
        "uniform",
        "--seeds",
        "0",
        "--budgets",
        "16",
        "--total",
        "48",
        "--repeats",
        "3",
    )
    assert compare.run_tool("--simulate", "--world", "tasks=32", "depth=2", *grid) == 0
    result = json.loads(Path("out/results/uniform-b16-s0.json").read_text())
    assert result["kind"] == "simulated" and result["settings"]["world.depth"] == 2
    assert result["evaluations"]["rollouts"] == [0, 16, 32, 48]
    assert {"gradient_snr", "mixed_by_plan"} <= result["numbers"].keys()
    assert "The policy held still" in Path("out/comparison.html").read_text()
