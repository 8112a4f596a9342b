"""The bench prints its figures; on passages so few that they say nothing."""

import re
import sys
from typing import Any


def test_it_compares_memory_and_disk(
    load_tool: Any, tmp_path: Any, monkeypatch: Any, capsys: Any
) -> None:
    tool = load_tool("bench_retriever")
    monkeypatch.setattr(
        sys, "argv", ["bench", "--passages", "50", "--processes", "1", "--out", str(tmp_path / "i")]
    )
    monkeypatch.setattr(tool, "side_by_side", lambda _, folder, count, queries: [
        tool.measured(folder, tool.made_up(count), queries, NoBarrier())
    ])  # fmt: skip
    tool.main()
    said = capsys.readouterr().out
    assert re.search(r"mapped +open_s .* searches_per_s .* private .* shared", said)
    assert re.search(r"memory +open_s", said)


class NoBarrier:
    """One process waits for nobody."""

    def wait(self) -> None:
        """Return."""
