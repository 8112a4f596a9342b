"""The rules between HF and Megatron tensors, and the table of each family."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from megatron_trace.models.architecture import padded_vocabulary
from megatron_trace.models.weight_map import FAMILIES, expand, family_of, shape_of
from megatron_trace.models.weight_rules import (
    DIRECT,
    GATE_UP,
    QKV,
    ROW,
    VOCABULARY,
    ColumnParallel,
    Rule,
    Shape,
)
from megatron_trace.policy.convert.locations import hf_shape

SHAPE = Shape(groups=4, heads=8, head_dim=3, vocabulary=20)
SOURCES = {
    "direct": (DIRECT, [(7,)]),
    "column": (ColumnParallel(), [(8, 5)]),
    "row": (ROW, [(5, 8)]),
    "vocabulary": (VOCABULARY, [(20, 5)]),
    "qkv": (QKV, [(24, 5), (12, 5), (12, 5)]),
    "qkv bias": (QKV, [(24,), (12,), (12,)]),
    "gate_up": (GATE_UP, [(8, 5), (8, 5)]),
}


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("name", SOURCES)
def test_shards_give_the_hf_tensors_back(name: str, ranks: int) -> None:
    rule, shapes = SOURCES[name]
    parts = [torch.randn(shape) for shape in shapes]
    full = rule.merge(parts, SHAPE)
    shards = [rule.shard(full, rank, ranks) for rank in range(ranks)]
    back = rule.split(rule.join(shards), SHAPE)
    assert all(torch.equal(one, other) for one, other in zip(back, parts, strict=True))
    assert rule is DIRECT or sum(shard.numel() for shard in shards) == sum(
        part.numel() for part in parts
    )


def test_qkv_keeps_a_group_s_heads_together() -> None:
    q, k, v = torch.arange(24), 100 + torch.arange(12), 200 + torch.arange(12)
    merged = QKV.merge([q, k, v], SHAPE)
    assert merged[:12].tolist() == [0, 1, 2, 3, 4, 5, 100, 101, 102, 200, 201, 202]


def test_a_rank_s_gate_sits_above_its_up() -> None:
    full = GATE_UP.merge([torch.arange(4), 10 + torch.arange(4)], SHAPE)
    assert GATE_UP.shard(full, 1, 2).tolist() == [2, 3, 12, 13]


def test_vocabulary_padding_is_cut_off() -> None:
    assert VOCABULARY.split(torch.zeros(64, 2), SHAPE)[0].shape == (20, 2)


def config(family: str, **special: Any) -> dict[str, Any]:
    """A config.json with four layers."""
    sizes = {
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 20,
    }
    experts = {"num_experts": 3} if family == "qwen3_moe" else {}
    return {"model_type": family, "hidden_size": 32, **sizes, **experts, **special}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_tables_name_every_tensor_once(family: str, tied: bool) -> None:
    rows = expand(FAMILIES[family], config(family, mlp_only_layers=[2]), tied=tied)
    # (Of a row's Megatron names a model has one, but no two rows may claim the same.)
    for names in ([n for row in rows for n in row.hf], [n for row in rows for n in row.megatron]):
        assert len(names) == len(set(names))
        assert not any("{" in name for name in names)
    hf = {name for row in rows for name in row.hf}
    assert ("lm_head.weight" in hf) is not tied
    assert "model.layers.2.mlp.down_proj.weight" in hf
    assert all(isinstance(row.rule, Rule) for row in rows)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_table_names_the_tensors_that_transformers_saves_and_knows_their_shapes(
    model_type: str, tmp_path: Path
) -> None:
    special = (
        {"mlp_only_layers": [1], "moe_intermediate_size": 16} if model_type == "qwen3_moe" else {}
    )
    wanted = config(model_type, intermediate_size=24, head_dim=4, **special)
    AutoModelForCausalLM.from_config(CONFIG_MAPPING[model_type].from_dict(wanted)).save_pretrained(
        tmp_path
    )
    written = json.loads((tmp_path / "config.json").read_text())
    rows = expand(FAMILIES[model_type], written, tied=False)
    saved = load_file(tmp_path / "model.safetensors")
    shapes = {name: tuple(tensor.shape) for name, tensor in saved.items()}
    assert {name: hf_shape(name, written) for row in rows for name in row.hf} == shapes
    assert shape_of(written) == shape_of(wanted)


def test_rows_come_layer_by_layer_and_experts_in_order() -> None:
    rows = expand(FAMILIES["qwen3_moe"], config("qwen3_moe"), tied=False)
    assert [rows[0].hf[0], rows[-2].hf[0], rows[-1].hf[0]] == [
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
    ]
    experts = [row.megatron[0] for row in rows if ".experts." in row.megatron[0]]
    first, fc1, fc2 = (
        "decoder.layers.0.mlp.experts.local_experts.",
        ".linear_fc1.weight",
        ".linear_fc2.weight",
    )
    assert experts[:4] == [
        first + "0" + fc1,
        first + "0" + fc2,
        first + "1" + fc1,
        first + "1" + fc2,
    ]
    assert len(experts) == 4 * 3 * 2


def test_an_expert_has_a_name_in_both_of_megatron_s_layers() -> None:
    rows = expand(FAMILIES["qwen3_moe"], config("qwen3_moe"), tied=False)
    row = next(row for row in rows if "model.layers.3.mlp.experts.2.up_proj.weight" in row.hf)
    assert row.megatron == (
        "decoder.layers.3.mlp.experts.local_experts.2.linear_fc1.weight",
        "decoder.layers.3.mlp.experts.linear_fc1.weight2",
    )


def test_a_head_s_width_is_what_transformers_assumes() -> None:
    for family in FAMILIES:
        loaded = CONFIG_MAPPING[family].from_dict(config(family))
        width = (
            getattr(loaded, "head_dim", None) or loaded.hidden_size // loaded.num_attention_heads
        )
        assert shape_of(config(family)).head_dim == width


def test_padding_of_the_vocabulary_depends_on_the_vocabulary_alone() -> None:
    assert [padded_vocabulary(size) for size in (1, 1024, 1025, 151936)] == [
        1024,
        1024,
        2048,
        152576,
    ]


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(ValueError, match="model type 'gpt9' has no weight map"):
        family_of("gpt9")
