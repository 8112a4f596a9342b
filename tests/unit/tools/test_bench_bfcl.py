"""The ground truth is right, and a fork before the last reply goes on."""

import pytest

pytest.importorskip("bfcl_eval")

from megatron_trace.envs.bfcl.tasks import MULTI_TURN, read_category


def test_every_category_is_timed(load_tool, monkeypatch, capsys) -> None:
    tool = load_tool("bench_bfcl")
    monkeypatch.setattr(tool, "read_category", lambda name: read_category(name)[:3])
    monkeypatch.setattr("sys.argv", ["bench_bfcl", "--threads", "2"])
    tool.main()
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == list(MULTI_TURN)
    assert all(" 3 episodes, 3 right, mean " in line for line in said)
