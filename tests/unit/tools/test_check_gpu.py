"""tools/check_gpu.py: its checks run on a CPU too, and one that fails stops no other."""

import ast
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gpu_checks import kernels, machine
from gpu_checks.catalogue import all_checks
from gpu_checks.check import Check, Context, Group, Outcome, Wrong
from gpu_checks.supervise import Supervisor

TOOL = Path(__file__).parents[3] / "tools" / "check_gpu.py"
FAULTS = """
import os, signal, time
from gpu_checks.check import Skip, require

def fine(context): return "as it should be"
def missing(context): return "never runs"
def wrong(context): require(False, "3 is not 4")
def unable(context): raise Skip("needs two of them")
def error(context): raise RuntimeError("first line\\nsecond line")
def dead(context):
    print("the last words", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)
def endless(context): time.sleep(600)
"""


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context("cpu", tmp_path)


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Check]:
    """Checks of every fate, in a copy of the tool's folder."""
    folder = tmp_path / "tools" / "gpu_checks"
    folder.mkdir(parents=True)
    for name in ("__init__", "check", "worker"):
        source = (TOOL.parent / "gpu_checks" / f"{name}.py").read_text()
        (folder / f"{name}.py").write_text(source)
    (folder / "faults.py").write_text(FAULTS)
    names = ("fine", "wrong", "unable", "error", "dead", "endless")
    checks = [Check(name, "faults", limit_s=30 - 28 * (name == "endless")) for name in names]
    checks += [Check("missing", "faults", ("no_such_package.at_all",))]
    listed = "\n".join(f"    {check!r}," for check in checks)
    (folder / "catalogue.py").write_text(
        f"from gpu_checks.check import Check\n\n\ndef all_checks():\n    return [\n{listed}\n]\n"
    )
    monkeypatch.setattr("gpu_checks.supervise.TOOLS", folder.parent)
    return checks


def test_a_check_that_fails_stops_no_other(faults: list[Check], tmp_path: Path) -> None:
    supervisor = Supervisor("cpu", tmp_path, time.monotonic() + 100)
    outcomes = list(supervisor.run(Group("faults", tuple(faults))))
    assert [(one.name, one.status) for one in outcomes] == [
        ("fine", "passed"),
        ("wrong", "failed"),
        ("unable", "skipped"),
        ("error", "failed"),
        ("dead", "failed"),
        ("endless", "failed"),
        ("missing", "skipped"),
    ]
    texts = {one.name: one.text for one in outcomes}
    assert texts["wrong"] == "3 is not 4"
    assert texts["error"] == "RuntimeError: first line"
    assert texts["dead"] == "its process ended with SIGSEGV"
    assert texts["endless"] == "no result after 2 s"
    assert texts["missing"] == "not installed: no_such_package.at_all"
    details = {one.name: one.details for one in outcomes}
    assert "the last words" in details["dead"] and "second line" in details["error"]


def test_what_does_not_fit_into_the_time_is_skipped(faults: list[Check], tmp_path: Path) -> None:
    endless = faults[5]
    late = Supervisor("cpu", tmp_path, time.monotonic() + 1)
    outcomes = list(late.run(Group("faults", (endless, faults[0]))))
    assert [one.status for one in outcomes] == ["skipped", "skipped"]
    assert {one.text for one in outcomes} == {"the time for all checks is over"}


def test_every_check_of_the_list_exists() -> None:
    names = [check.name for check in all_checks()]
    assert len(set(names)) == len(names)
    for check in all_checks():
        # Without the imports, which take a minute.
        tree = ast.parse((TOOL.parent / "gpu_checks" / f"{check.module}.py").read_text())
        defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        assert check.function in defined, check


def test_pytorchs_own_kernels_are_right_on_a_cpu(context: Context) -> None:
    assert "float32" in kernels.matrix_products(context)
    assert "bf16" in kernels.packed_attention(context)


def test_attention_that_sees_the_next_row_is_noticed(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans_of = kernels.spans_of
    together = kernels.described([0, *kernels.STARTS[2:]], kernels.SHARED[1:])
    monkeypatch.setattr(kernels, "spans_of", lambda _, *where: spans_of(together, *where))
    with pytest.raises(Wrong, match="off float64's"):
        kernels.packed_attention(context)


def test_it_begins_without_any_package(tmp_path: Path) -> None:
    out = tmp_path / "outcomes.json"
    command = [sys.executable, "-S", str(TOOL), "--device", "cpu", "--json", str(out)]
    done = subprocess.run(
        [*command, "--only", "versions"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "1 passed, 0 failed, 0 skipped" in done.stdout
    assert [Outcome(**one).status for one in json.loads(out.read_text())] == ["passed"]


def test_a_small_shared_memory_is_a_failure(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = machine.shutil.disk_usage("/")._replace(total=64 << 20)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(Wrong, match=r"0\.06 GiB.*--shm-size"):
        machine.host_memory(context)
