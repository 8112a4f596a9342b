import re

import pytest
from rich.console import Console

from megatron_trace.compare.comparison_page import write_comparison
from megatron_trace.compare.footnotes import footnotes
from megatron_trace.compare.results_table import terminal_table
from megatron_trace.compare.summary import summarise
from tests.unit.compare.canned import field, record


def page(tmp_path, records, command="") -> str:
    return write_comparison(tmp_path / "page.html", records, "uniform", command).read_text(
        encoding="utf-8"
    )


def test_a_page_shows_the_comparison_and_asks_nothing_of_the_network(tmp_path) -> None:
    text = page(tmp_path, field(), "python tools/compare_allocation.py --seeds 0-2")
    for part in (
        "2 variants, 3 seeds, on the real stack",
        *("+11.0 points", "1.90 ×", "50 %", "3 of 3 seeds"),
        *("Success over rollouts", "Success over sampled tokens", "Effective ratio"),
        *("cannot fall below 0.25", "--seeds 0-2", "learning.optimizer.learning_rate=0.0001"),
    ):
        assert part in text
    assert set(re.findall(r"https?://[^\s\"']+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(script|link|img|iframe)\b|@import|url\(", text)
    assert not re.search(r'd="[^"]*(nan|inf)', text)


@pytest.mark.parametrize(
    "records",
    [
        [record("uniform", 0, [0.5])],
        [record("trace", 0, [0.5, 0.6])],
        [record("uniform", 0, [], ratio=())],
        [record("uniform", 0, [0.5, 0.5]), record("trace", 1, [0.4, 0.5])],
        [record("uniform", 0, [0.5, float("nan")]), record("trace", 0, [0.4, 0.5])],
    ],
    ids=["one seed", "no baseline", "nothing measured", "no seed in common", "a gap"],
)
def test_a_page_does_without_what_is_missing(tmp_path, records) -> None:
    text = page(tmp_path, records)
    assert "How it was made" in text
    assert not re.search(r'd="[^"]*(nan|inf)|>nan', text)


def test_a_dozen_variants_have_a_dozen_colours(tmp_path) -> None:
    records = [record(f"v{n}", 0, [0.1, 0.2 + 0.01 * n]) for n in range(12)]
    text = page(tmp_path, [*records, record("uniform", 0, [0.1, 0.2])])
    assert (
        len(set(re.findall(r'style="fill:([^"]+)" font-weight="600">(?:v\d+|uniform)<', text)))
        == 13
    )


def test_names_are_escaped(tmp_path) -> None:
    assert "<script" not in page(tmp_path, [record("<script>", 0, [0.5, 0.6])], "<script>")


def test_simulated_results_show_what_was_measured_with_the_policy_held_still(tmp_path) -> None:
    records = [record(name, 0, [0.5, 0.6], kind="simulated") for name in ("uniform", "trace")]
    for one in records:
        one.numbers = {
            "gradient_snr_per_1000_rollouts": 2.25,
            "mixed_by_plan": 12.5,
            "tokens": 3000.0,
        }
    text = page(tmp_path, records)
    assert "in the simulator" in text and "The policy held still" in text and "12.5" in text
    assert "SNR per 1,000 rollouts" in text and "2.25" in text
    assert "are exact only where all continuations are planned at once" in text


def test_without_training_only_what_was_measured_with_the_policy_held_still_is_shown(
    tmp_path,
) -> None:
    records = [record(name, 0, [], kind="simulated", ratio=()) for name in ("uniform", "trace")]
    for one in records:
        one.numbers = {"mixed_by_plan": 12.5}
    text = page(tmp_path, records)
    assert "The policy held still" in text and "All variants" not in text and "Curves" not in text


@pytest.mark.parametrize(
    ("seeds", "how"), [(16, "the exact sign-flip"), (17, "the sampled (9,999 flips) sign-flip")]
)
def test_the_notes_say_whether_the_flip_test_is_exact(seeds, how) -> None:
    assert any(
        how in note
        for note in footnotes(summarise(field(seeds), "uniform"), "uniform", simulated=False)
    )


def test_the_table_has_a_line_for_each_variant() -> None:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal_table(summarise(field(), "uniform")))
    text = console.export_text()
    assert re.search(r"trace .* 52\.0 % .*\+11\.0 .* 95\.0 % .* 1\.90 .* 50 %", text)
    assert re.search(r"3 seeds .* \[50\.0, 54\.0\] .* 0\.250", text)
