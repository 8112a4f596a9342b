"""A run that torchrun would kill while it saves is refused."""

import os
from types import SimpleNamespace

import psutil
import pytest

from megatron_trace.check.launcher import check_launcher, shutdown_timeout
from megatron_trace.config import SettingError
from tests.unit.check.models import settings

PROGRAM = ["pretrain_trace.py", "--config", "configs/qwen3_14b.yaml"]


@pytest.mark.parametrize(
    ("options", "environment", "seconds"),
    [
        ([], {}, 30.0),
        (["--shutdown-timeout", "960"], {}, 960.0),
        (["--shutdown-timeout=960"], {}, 960.0),
        (["--shutdown_timeout=960"], {"PET_SHUTDOWN_TIMEOUT": "5"}, 960.0),
        ([], {"PET_SHUTDOWN_TIMEOUT": "5", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "6"}, 5.0),
        ([], {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "6"}, 6.0),
    ],
)
def test_the_launchers_limit_is_read_as_torchrun_reads_it(
    options: list[str], environment: dict[str, str], seconds: float
) -> None:
    command = ["python", "torchrun", "--nproc-per-node", "8", *options, *PROGRAM]
    assert shutdown_timeout(command, environment) == seconds


def test_a_time_to_end_beyond_the_launchers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["torchrun", *PROGRAM]
    process = SimpleNamespace(cmdline=lambda: command)
    monkeypatch.setattr(psutil, "Process", lambda pid: process if pid == os.getppid() else None)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    check_launcher(settings())
    long = settings(stop__grace_s=900.0)
    with pytest.raises(
        SettingError, match=r"grace_s = 900.0: torchrun kills .* 30 s .* --shutdown-timeout 960"
    ):
        check_launcher(long)
    command.insert(1, "--shutdown-timeout=960")
    check_launcher(long)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    command.pop(1)
    check_launcher(long)
