"""The rules between HF and Megatron tensors, and the table of each family."""

import pytest
import torch

from megatron_trace.policy.weight_map import (
    COLUMN,
    DIRECT,
    FAMILIES,
    GATE_UP,
    QKV,
    ROW,
    VOCABULARY,
    Rule,
    Shape,
    expand,
    family_of,
)

SHAPE = Shape(groups=4, heads=8, head_dim=3, vocabulary=20)
SOURCES = {
    "direct": (DIRECT, [(7,)]),
    "column": (COLUMN, [(8, 5)]),
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
    assert rule is DIRECT or sum(shard.numel() for shard in shards) == sum(part.numel() for part in parts)


def test_qkv_keeps_a_group_s_heads_together() -> None:
    q, k, v = torch.arange(24), 100 + torch.arange(12), 200 + torch.arange(12)
    merged = QKV.merge([q, k, v], SHAPE)
    assert merged[:12].tolist() == [0, 1, 2, 3, 4, 5, 100, 101, 102, 200, 201, 202]


def test_a_rank_s_gate_sits_above_its_up() -> None:
    full = GATE_UP.merge([torch.arange(4), 10 + torch.arange(4)], SHAPE)
    assert GATE_UP.shard(full, 1, 2).tolist() == [2, 3, 12, 13]


def test_vocabulary_padding_is_cut_off() -> None:
    assert VOCABULARY.split(torch.zeros(64, 2), SHAPE)[0].shape == (20, 2)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_tables_name_every_tensor_once(family: str, tied: bool) -> None:
    rows = expand(FAMILIES[family], 3, tied=tied)
    for names in ([n for row in rows for n in row.hf], [n for row in rows for n in row.megatron]):
        assert len(names) == len(set(names))
        assert not any("{" in name for name in names)
    hf = {name for row in rows for name in row.hf}
    assert ("lm_head.weight" in hf) is not tied
    assert "model.layers.2.mlp.down_proj.weight" in hf
    assert all(isinstance(row.rule, Rule) for row in rows)


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(ValueError, match="model type 'gpt9' has no weight map"):
        family_of("gpt9")
