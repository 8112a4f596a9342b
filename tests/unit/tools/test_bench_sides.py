"""The bench and its sides: who takes a step when, and what is counted."""

import sys
from pathlib import Path

import bench_sides
import pytest

SIDE = """
import sys
from pathlib import Path
from bench_sides import serve

name, log = sys.argv[1:]
steps = 0

def step():
    global steps
    steps += 1
    with open(log, "a") as file:
        file.write(name)
    print("a library's line without an end", end="")
    return {"step": steps}

serve({"step": step})
"""


def test_sides_step_in_alternating_order_and_warm_up_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(bench_sides.__file__).parent))
    log = tmp_path / "log"
    commands = {name: [sys.executable, "-c", SIDE, name, log] for name in "ab"}
    with bench_sides.running(commands, threads=1) as sides:
        bench_sides.take_turns(sides, warm_up=1, repeats=2)
    assert log.read_text() in ("abbaab", "baabba")
    for side in sides.values():
        assert side.first["step"] == 1
        assert side.values("step") == [2, 3]
        assert all(seconds > 0 for seconds in side.values("seconds"))
        assert side.process.returncode == 0


def test_a_side_that_ends_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit(3)"]
    with (
        pytest.raises(SystemExit, match=r"exit code 3: .*SystemExit"),
        bench_sides.running({"broken": command}, threads=1),
    ):
        pass
