"""Every way in which a run can end has its exit code, and the guard is told why."""

import signal
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.api import ProcessFailure
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from megatron_trace.check.command import Command
from megatron_trace.config import Config
from megatron_trace.policy.ranks import LeaderLost
from megatron_trace.supervise.health import UnhealthyRun
from megatron_trace.supervise.stop import Stopped
from megatron_trace.training import guarded_run, run
from megatron_trace.training.guarded_run import run_guarded, write_exit_code
from megatron_trace.training.identity import OtherRun

NO_REASON = "To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html"


class RecordingGuard:
    def __init__(self) -> None:
        self.told: list[tuple[int, str]] = []

    def leave(self, code: int, words: str = "") -> None:
        self.told.append((code, words))


@pytest.fixture
def guard(monkeypatch) -> RecordingGuard:
    guard = RecordingGuard()
    monkeypatch.setattr(guarded_run.guard, "start", lambda *arguments, **settings: guard)
    monkeypatch.setattr(guarded_run, "Stop", lambda limit_s: limit_s)
    return guard


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (None, 0, ""),
        (UnhealthyRun("kl is 9"), 3, "stopped: kl is 9"),
        (OtherRun("not this one"), 2, "error: not this one"),
        (Stopped(signal.SIGTERM), 143, "stopped by SIGTERM"),
        (Stopped(signal.SIGALRM), 75, "stopped by stop.time_limit_min"),
        (LeaderLost(), 1, ""),
        (KeyError("x"), 1, "ended by KeyError: 'x'"),
    ],
)
def test_an_end_has_its_exit_code_and_its_words(
    guard, monkeypatch, tmp_path, error, code, words
) -> None:
    def ends(*arguments: object) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(run, "run", ends)
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    assert run_guarded(Command(Config(), replay=None, rollout_only=False)) == code
    assert guard.told == [(code, words)]
    assert torchruns_report(tmp_path / "error.json", code).endswith(words or NO_REASON)


def torchruns_report(error_file: Path, code: int) -> str:
    """What torchrun prints last when a rank has failed, without the rule below it."""
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=code, error_file=str(error_file))
    return str(ChildFailedError("program", {0: failure})).rstrip("=\n")


def test_the_time_limit_leaves_the_grace_time_to_save(guard, monkeypatch) -> None:
    limits: list[float | None] = []
    monkeypatch.setattr(run, "run", lambda command, guard, stop: limits.append(stop))
    config = Config()
    for minutes in (None, 10.0):
        config.stop.time_limit_min, config.stop.grace_s = minutes, 25.0
        run_guarded(Command(config, replay=None, rollout_only=False))
    assert limits == [None, 575.0]


def test_a_folder_that_cannot_be_made_is_a_wrong_setting(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    (tmp_path / "file").touch()
    config = Config()
    config.run.directory = str(tmp_path / "file")
    assert run_guarded(Command(config, replay=None, rollout_only=False)) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: run.directory = ")
    assert torchruns_report(tmp_path / "error.json", 2).endswith(said)


@pytest.mark.parametrize(("rank", "written"), [("0", "75\n"), ("1", None)])
def test_rank_0_leaves_its_exit_code_in_the_file_that_is_named(
    tmp_path, monkeypatch, rank, written
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("TRACE_EXIT_FILE", str(tmp_path / "code"))
    assert write_exit_code(75) == 75
    assert ((tmp_path / "code").read_text() if (tmp_path / "code").exists() else None) == written
