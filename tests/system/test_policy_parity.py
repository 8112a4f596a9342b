"""One policy, whatever the layout of its train ranks and whatever they keep of their activations."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from tests.system.layouts import FOUR, RECOMPUTE, TWO
from tests.system.parity import (
    assert_same_bits,
    assert_same_training,
    assert_speaks_like_transformers,
    expected_head,
    head_of,
    launch,
    make_rows,
    save_model,
    settings,
)

VOCABULARY = 100
ROWS = make_rows(VOCABULARY)
TIES = ("tied", "untied")
PACKINGS = {
    "trees": [],
    "turns alone": ["learning.batching.merge=false"],
    "small trees": ["learning.batching.micro_batch_tokens=32"],
    "large trees": ["learning.batching.micro_batch_tokens=512"],
}
STILL = ["learning.optimizer.learning_rate=1e-15"]
"""The policy stays as it was, and so do the hidden states that the predictor learns from."""

HOW_STATES_LIE = ("tensor2", "context2", "data2")
"""Layouts in which ranks of the last stage have the same hidden states, or have others."""

BOTH = ("tensor2", "pipeline2", "interleaved")
"""Layouts whose weights lie otherwise where the output layer is the embedding."""
CASES = [(layout, tie) for layout in TWO for tie in TIES if tie == "tied" or layout in BOTH]
ALONE = [("one", tie) for tie in TIES]


def make_policy(folder: Path, *, tied: bool) -> None:
    torch.manual_seed(1)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=128,
        initializer_range=0.2,
        tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    )
    save_model(Qwen3ForCausalLM(config).float(), folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parity")
    for tie in TIES:
        make_policy(folder / f"model-{tie}", tied=tie == "tied")
    # Row by row, so that all that follows compares trees with rows.
    rows = "learning.batching.pack=rows"
    alone = {f"one-{tie}": settings(folder / f"model-{tie}", rows) for tie in TIES}
    alone |= {
        f"{name}-tied": settings(folder / "model-tied", *packing)
        for name, packing in PACKINGS.items()
    }
    alone |= {
        f"{name}-tied": settings(folder / "model-tied", *kept) for name, kept in RECOMPUTE.items()
    }
    alone["one-still"] = settings(folder / "model-tied", *STILL)
    launch(folder, 1, alone, ROWS)
    two = {
        f"{layout}-{tie}": settings(folder / f"model-{tie}", *TWO[layout]) for layout, tie in CASES
    }
    two |= {
        f"{layout}-still": settings(folder / "model-tied", *STILL, *TWO[layout])
        for layout in HOW_STATES_LIE
    }
    launch(folder, 2, two, ROWS)
    return folder


@pytest.fixture(scope="module")
def wide(folder: Path) -> Path:
    launch(
        folder,
        4,
        {
            f"{layout}-tied": settings(folder / "model-tied", *sizes)
            for layout, sizes in FOUR.items()
        },
        ROWS,
    )
    return folder


def seen(folder: Path, layout: str, tie: str) -> dict:
    return pickle.loads((folder / f"{layout}-{tie}.pickle").read_bytes())


@pytest.mark.parametrize(("layout", "tie"), CASES)
def test_every_layout_takes_the_same_training_steps(folder: Path, layout: str, tie: str) -> None:
    assert_same_training(seen(folder, "one", tie), seen(folder, layout, tie))


@pytest.mark.parametrize("packing", PACKINGS)
def test_packed_trees_take_the_steps_of_rows(folder: Path, packing: str) -> None:
    one, other = seen(folder, "one", "tied"), seen(folder, packing, "tied")
    assert_same_training(one, other, close=1e-5)
    for rows, trees in zip(one["updates"], other["updates"], strict=True):
        assert rows["tree_reuse"] == 1.0
        assert trees["tree_reuse"] > 1.2
        assert trees["computed_tokens"] < rows["computed_tokens"]


@pytest.mark.parametrize("kept", RECOMPUTE)
def test_what_is_computed_anew_is_what_was_not_kept(folder: Path, kept: str) -> None:
    assert_same_training(seen(folder, "trees", "tied"), seen(folder, kept, "tied"), close=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("layout", FOUR)
def test_four_ranks_take_the_same_training_steps(wide: Path, layout: str) -> None:
    assert_same_training(seen(wide, "one", "tied"), seen(wide, layout, "tied"))
    assert_speaks_like_transformers(seen(wide, layout, "tied"), wide / "model-tied", ROWS)
    assert_same_bits(wide / "model-tied", wide / f"{layout}-tied-start", without=["lm_head.weight"])


@pytest.mark.parametrize("tie", TIES)
def test_training_changes_policy_and_predictor(folder: Path, tie: str) -> None:
    one = seen(folder, "one", tie)
    for name, before in one["start"]:
        assert not torch.equal(before, one["end"][name]), name


@pytest.mark.parametrize("layout", ["one", *HOW_STATES_LIE])
def test_the_predictor_learns_what_its_formulas_say(folder: Path, layout: str) -> None:
    still = seen(folder, layout, "still")
    start, end = (head_of(dict(still[when])) for when in ("start", "end"))
    right = expected_head(folder / "model-tied", ROWS, steps=2)
    assert np.abs(right - start).max() > 0.1
    np.testing.assert_allclose(end, right, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("layout", "tie"), [*ALONE, *CASES])
def test_logprobs_and_predictions_are_those_of_transformers(
    folder: Path, layout: str, tie: str
) -> None:
    assert_speaks_like_transformers(seen(folder, layout, tie), folder / f"model-{tie}", ROWS)


@pytest.mark.parametrize(("layout", "tie"), [*ALONE, *CASES])
def test_export_returns_the_loaded_bits(folder: Path, layout: str, tie: str) -> None:
    start = folder / f"{layout}-{tie}-start"
    assert_same_bits(
        folder / f"model-{tie}", start, without=["lm_head.weight"] if tie == "tied" else []
    )
    assert (start / "chat_template.jinja").exists()


@pytest.mark.parametrize(("layout", "tie"), [*ALONE, *CASES])
def test_weight_sync_announces_what_it_sends(folder: Path, layout: str, tie: str) -> None:
    other = seen(folder, layout, tie)
    assert other["metadata"] == [(name, t.dtype, tuple(t.shape)) for name, t in other["start"]]
    sent = dict(other["start"])
    assert len(sent) == len(other["start"])
    assert {"lm_head.weight", "predictor.weight", "predictor.bias"} <= sent.keys()
    if tie == "tied":
        assert torch.equal(
            other["end"]["lm_head.weight"], other["end"]["model.embed_tokens.weight"]
        )


@pytest.mark.parametrize("tie", TIES)
def test_a_trained_policy_loads_in_transformers(folder: Path, tie: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder / f"tensor2-{tie}")
    end = seen(folder, "tensor2", tie)["end"]
    assert json.loads((folder / f"tensor2-{tie}" / "config.json").read_text())["dtype"] == "float32"
    for name, parameter in model.state_dict().items():
        assert torch.equal(parameter, end[name]), name
