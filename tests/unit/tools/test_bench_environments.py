"""The benchmark plays an environment from its tasks."""

import sys
from pathlib import Path
from typing import Any

import bench_environments

EXAMPLE = Path(__file__).parents[3] / "examples/environment"


def test_it_times_an_environment(monkeypatch: Any, capsys: Any) -> None:
    arguments = [f"{EXAMPLE / 'shop.py'}={EXAMPLE / 'tasks.jsonl'}", "--threads", "2"]
    monkeypatch.setattr(sys, "argv", ["bench", *arguments, "--seconds", "0.2"])
    bench_environments.main()
    assert "steps/s" in capsys.readouterr().out
