"""The examples of docs/simulator.md run as they stand."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs/simulator.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_example_runs(number, capsys) -> None:
    exec(EXAMPLES[number], {"__name__": "example"})
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) >= 2
    if printed[0].startswith("uniform"):
        uniform, trace = (float(line.split()[-1]) for line in printed)
        assert trace > uniform
