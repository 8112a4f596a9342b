"""A run without a home folder, a terminal or a user's name finds others."""

import os
import subprocess
import sys

import pytest

SHOW = (
    "import os, sys; from megatron_trace.supervise.surroundings import settle_in; settle_in(); "
    "home = os.path.expanduser('~'); "
    "sys.stderr.write(f'{home} {oct(os.stat(home).st_mode)[-3:]} {os.access(home, os.W_OK)}')"
)


def run(code: str, shell: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    command = f'exec "$0" -c "$1" {shell}'
    return subprocess.run(
        ["sh", "-c", command, sys.executable, code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_writable_home_stays(tmp_path) -> None:
    assert run(SHOW, HOME=str(tmp_path)).stderr.split()[0] == str(tmp_path)


@pytest.mark.parametrize("home", ["/nonexistent", "/proc", "/dev/null"])
def test_a_home_that_cannot_be_written_is_replaced_by_a_private_folder(tmp_path, home) -> None:
    for _ in range(2):
        said = run(SHOW, HOME=home, TMPDIR=str(tmp_path)).stderr
        assert said == f"{tmp_path}/trace_home_{os.getuid()} 700 True"


def test_nothing_is_kept_in_a_folder_that_somebody_else_may_have_made(tmp_path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / f"trace_home_{os.getuid()}").symlink_to(tmp_path / "other")
    said = run(SHOW, HOME="/nonexistent", TMPDIR=str(tmp_path)).stderr
    assert said.startswith(f"{tmp_path}/trace_home_")
    assert not said.startswith(f"{tmp_path}/trace_home_{os.getuid()} ")


PRINT = (
    "import os, sys; from megatron_trace.supervise.surroundings import settle_in; settle_in(); "
    "file = os.open('opened', os.O_CREAT | os.O_RDWR); "
    "print('a' * 10**5, flush=True); print('b'); "
    "sys.stderr.write(str(os.path.getsize('opened')) + ' ' + str(file > 2))"
)


@pytest.mark.parametrize("shell", [">&-", ">/dev/full", "<&- >&-", "3>&1 >&- | true"])
def test_output_that_goes_nowhere_ends_nothing_and_lands_in_no_file(
    tmp_path, monkeypatch, shell
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    monkeypatch.chdir(tmp_path)
    done = run(PRINT, shell)
    assert (done.returncode, done.stderr) == (0, "0 True")


def test_a_closed_pipe_ends_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    monkeypatch.chdir(tmp_path)
    done = run(PRINT, "| true; exit 0")
    assert done.stderr == "0 True"


def test_all_output_may_be_gone(tmp_path) -> None:
    code = PRINT.replace("sys.stderr.write(", "open('done', 'w').write(")
    done = run(f"import os; os.chdir({str(tmp_path)!r}); {code}", "<&- >&- 2>&-")
    assert (done.returncode, (tmp_path / "done").read_text()) == (0, "0 True")
