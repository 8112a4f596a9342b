import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from megatron_trace.report.exemplars import (
    BARE_MIXED,
    FOUND,
    MISSED,
    SHARPENED,
    choose_exemplars,
    kind_of,
)
from megatron_trace.report.metrics_file import MetricsWriter
from megatron_trace.report.page import write_page
from megatron_trace.report.run_page import write_report
from megatron_trace.tree import save_trees
from tests.unit.report.fake_run import answer, decode, fake_run, root, search


def report(run_dir: Path) -> str:
    return write_report(run_dir, decode=decode).read_text(encoding="utf-8")


def test_a_report_shows_the_run_and_asks_nothing_of_the_network(tmp_path) -> None:
    page = report(fake_run(tmp_path / "run", steps=12))
    for text in (
        "geo_hop_trace",
        "12 of 12 steps",
        "Held-out success",
        "Effective ratio",
        "Calibration",
        "restarted",
    ):
        assert text in page
    addresses = set(re.findall(r"https?://[^\s\"']+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(script|link|img|iframe)\b|@import|url\(", page)


def test_headline_numbers_are_those_of_the_metrics(tmp_path) -> None:
    with MetricsWriter(tmp_path) as writer:
        for step, score in ((0, 0.25), (2, 0.5)):
            writer.write(
                {"step": step, "evaluation": {"a": score}, "evaluation_standard_error": 0.015}
            )
        for step in range(2):
            counts = {"bare_rollouts": 600, "continuations": 900, "sampled_tokens": 1e6}
            writer.write(
                {"step": step, "effective_ratio": 0.3 + 0.3 * step, "time/learning": 45.0, **counts}
            )
    page = report(tmp_path)
    assert "25.0 → 50.0 %" in page and "+25.0 points; standard error 1.5" in page
    assert "30.0 → 60.0 %" in page
    assert "3,000" in page and "1,200 bare, 1,800 continuations" in page
    assert "2.0 M" in page and "in 1 min 30 s" in page


@pytest.mark.parametrize("missing", ["evaluate", "keep_trees", "config", "continuations"])
def test_a_report_does_without_what_a_run_lacks(tmp_path, missing) -> None:
    page = report(
        fake_run(tmp_path / "run", steps=3, **{missing: 0 if missing == "continuations" else False})
    )
    assert "Effective ratio" in page
    assert ("<h2>Trees</h2>" in page) == (missing != "keep_trees")
    assert (">Held-out success<" in page) == (missing != "evaluate")
    assert ("end otherwise" in page) == (missing != "continuations")


def test_a_run_that_died_at_once_has_a_report(tmp_path) -> None:
    assert "0 steps" in report(tmp_path)
    assert "1 steps" not in report(tmp_path)


def test_numbers_that_are_not_finite_are_left_out(tmp_path) -> None:
    with MetricsWriter(tmp_path) as writer:
        for step, value in enumerate((1.0, float("nan"), float("inf"), 2.0)):
            writer.write({"step": step, "gradient_norm": value, "entropy": float("nan")})
    page = report(tmp_path)
    assert "Gradient norm" in page and "Entropy" not in page
    assert not re.search(r'd="[^"]*(nan|inf)', page)


def test_text_from_anywhere_is_escaped(tmp_path) -> None:
    evil = "<script>alert(1)</script>"
    tree = root(question=evil, answers=[evil])
    tree.graft(0, [search(evil, 0.5), answer(evil, 1.0)])
    save_trees(tmp_path / "trees" / "step_000000.jsonl.gz", [tree])
    (tmp_path / "config.yaml").write_text(f'run:\n  name: "{evil}"\n')
    with MetricsWriter(tmp_path) as writer:
        writer.write({"step": 0, "evaluation": {evil: 0.5}})
        writer.write({"step": 0, "effective_ratio": 0.5, f"time/{evil}": 1.0, "events": [evil]})
    page = report(tmp_path)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 6


def test_characters_that_a_page_cannot_hold_are_replaced(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        writer.write({"step": 1, "events": ["a bell \x07 and half a pair \ud800"]})
    assert "a bell \ufffd and half a pair \ufffd" in report(tmp_path)


def test_a_page_with_a_place_that_nothing_fills_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UndefinedError, match="title"):
        write_page(tmp_path / "page.html", "page.html.j2", kind="report", subtitle="")
    assert not (tmp_path / "page.html").exists()


def test_shown_are_trees_where_continuations_found_the_contrast_and_one_without(tmp_path) -> None:
    shown = choose_exemplars(fake_run(tmp_path / "run", steps=12))
    assert [one.why for one in shown] == [FOUND, FOUND, FOUND, MISSED]
    assert shown[0].step < shown[1].step < shown[2].step
    for one in shown:
        assert kind_of(one.tree) == one.why


def test_without_such_trees_the_next_best_are_shown(tmp_path) -> None:
    bare, both = root(id="bare"), root(id="both")
    for tree in (bare, both):
        tree.graft(0, [search("Lyon", 0.5), answer("Paris", 1.0)])
        tree.graft(0, [answer("Graz", 0.0)])
    both.graft(1, [answer("Graz", 0.0)])
    for step, trees in enumerate(([bare], [bare, both])):
        save_trees(tmp_path / "trees" / f"step_{step:06d}.jsonl.gz", trees)
    assert {one.why for one in choose_exemplars(tmp_path)} == {SHARPENED, BARE_MIXED}


@pytest.mark.parametrize("merge", [False, True])
def test_equal_histories_are_drawn_as_the_run_took_them(tmp_path, merge: bool) -> None:
    tree = root()
    tree.graft(0, [search("Lyon", 0.5), answer("Paris", 1.0)])
    tree.graft(0, [search("Lyon", 0.5), answer("Graz", 0.0)])
    save_trees(tmp_path / "trees" / "step_000000.jsonl.gz", [tree])
    text = f"learning: {{advantage: {{merge: {str(merge).lower()}}}}}\n"
    (tmp_path / "config.yaml").write_text(text)
    drawn = re.findall(r'<g class="turn [^"]*"', report(tmp_path))
    assert len(drawn) == (4 if merge else 5)
