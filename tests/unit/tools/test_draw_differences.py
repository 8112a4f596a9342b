"""tools/draw_differences.py: differences are paired by seed, and the picture is an SVG of its own."""

import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from megatron_trace.compare.record import write_record
from megatron_trace.compare.summary import summarise
from tests.unit.compare.canned import field, record


@pytest.fixture(scope="module")
def tool(load_tool) -> ModuleType:
    return load_tool("draw_differences")


def test_a_difference_is_that_of_the_same_seed(tool: ModuleType) -> None:
    lines = {line.variant: line for line in summarise(field(seeds=3), "uniform")}
    points = tool.subtract(lines["trace"], lines["uniform"]).values["points"]
    assert points == pytest.approx([10.0, 11.0, 12.0])


def test_a_seed_that_the_baseline_lacks_is_left_out(tool: ModuleType) -> None:
    records = [*field(seeds=2), record("trace", 7, [0.2, 0.9])]
    lines = {line.variant: line for line in summarise(records, "uniform")}
    assert len(tool.subtract(lines["trace"], lines["uniform"]).values["points"]) == 2


def test_the_picture_has_a_panel_for_each_folder(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one in field():
        write_record(tmp_path, one)
    out = tmp_path / "picture.svg"
    panels = [f"Here={tmp_path}", f"There={tmp_path}"]
    argv = ["draw_differences.py", *panels, "--variants", "trace", "absent", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", argv)
    tool.main()
    text = "".join(ElementTree.fromstring(out.read_text(encoding="utf-8")).itertext())
    assert text.count("Here") == text.count("There") == 1
    assert "absent" not in text
