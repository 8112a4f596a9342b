"""Conversion of tiny folders made here. What Megatron itself says of checkpoints:
tests/system/test_conversion.py
"""

import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from megatron_trace.models.predictor import FILE, shapes
from megatron_trace.policy.convert import to_megatron as to_megatron_module
from megatron_trace.policy.convert.to_hf import to_hf
from megatron_trace.policy.convert.to_megatron import to_megatron
from megatron_trace.policy.convert.torch_dist_reader import TensorReader
from megatron_trace.policy.convert.torch_dist_writer import TensorBlock, write_checkpoint
from megatron_trace.policy.manifest import DamagedCheckpoint, verify, write_manifest
from tests.unit.faults import KINDS, each_fault

HIDDEN, HEADS, GROUPS, WIDTH, MLP, EXPERT, VOCABULARY = 10, 6, 2, 3, 7, 5, 1029
CONFIG: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": MLP,
    "num_attention_heads": HEADS,
    "num_key_value_heads": GROUPS,
    "head_dim": WIDTH,
    "num_hidden_layers": 3,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
}
SPARSE = {
    "model_type": "qwen3_moe",
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": EXPERT,
}
MODELS: dict[str, dict[str, Any]] = {
    "qwen3": {"model_type": "qwen3"},
    "qwen3-tied": {"model_type": "qwen3", "tie_word_embeddings": True},
    "qwen2": {"model_type": "qwen2"},
    "llama": {"model_type": "llama", "tie_word_embeddings": True},
    "moe": SPARSE,
    "moe-mixed": SPARSE | {"mlp_only_layers": [1]},
}


def tensors_of(config: dict[str, Any], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The model as transformers would save it."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (VOCABULARY, HIDDEN)
    for layer in range(config["num_hidden_layers"]):
        attention, mlp = f"model.layers.{layer}.self_attn.", f"model.layers.{layer}.mlp."
        for name, outputs in (("q", HEADS * WIDTH), ("k", GROUPS * WIDTH), ("v", GROUPS * WIDTH)):
            shapes[f"{attention}{name}_proj.weight"] = (outputs, HIDDEN)
            if config["model_type"] == "qwen2":
                shapes[f"{attention}{name}_proj.bias"] = (outputs,)
        shapes[f"{attention}o_proj.weight"] = (HIDDEN, HEADS * WIDTH)
        if config["model_type"].startswith("qwen3"):
            shapes |= {f"{attention}{name}_norm.weight": (WIDTH,) for name in "qk"}
        for name in ("input", "post_attention"):
            shapes[f"model.layers.{layer}.{name}_layernorm.weight"] = (HIDDEN,)
        networks = {mlp: MLP}
        if "num_experts" in config and layer not in config.get("mlp_only_layers", ()):
            networks = {
                f"{mlp}experts.{expert}.": EXPERT for expert in range(config["num_experts"])
            }
            shapes[f"{mlp}gate.weight"] = (config["num_experts"], HIDDEN)
        for prefix, width in networks.items():
            shapes |= {f"{prefix}{name}_proj.weight": (width, HIDDEN) for name in ("gate", "up")}
            shapes[f"{prefix}down_proj.weight"] = (HIDDEN, width)
    generator = torch.Generator().manual_seed(4)
    return {
        name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()
    }


def make_folder(folder: Path, model: str = "qwen3", dtype: torch.dtype = torch.bfloat16) -> Path:
    config = CONFIG | MODELS[model] | {"dtype": str(dtype).removeprefix("torch.")}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config, indent=3))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "generation_config.json").write_text('{"temperature": 0.6}')
    (folder / "LICENSE").write_text("free")
    save_file(tensors_of(config, dtype), folder / "model.safetensors")
    return folder


def add_predictor(folder: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    save_file(
        {name: torch.randn(shape, generator=generator) for name, shape in shapes(HIDDEN).items()},
        folder / FILE,
    )


def quietly(done: int, total: int) -> None:
    pass


def assert_same_folder(one: Path, other: Path) -> None:
    """The same files, byte for byte, and in those of weights the same tensors."""
    assert sorted(file.name for file in one.iterdir()) == sorted(
        file.name for file in other.iterdir()
    )
    for file in one.iterdir():
        if file.suffix != ".safetensors":
            assert file.read_bytes() == (other / file.name).read_bytes(), file.name
            continue
        before, after = load_file(file), load_file(other / file.name)
        assert before.keys() == after.keys()
        for name, tensor in before.items():
            assert tensor.dtype == after[name].dtype and torch.equal(tensor, after[name]), name


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vocabulary tables come in several blocks of rows, the last of them all padding."""
    monkeypatch.setattr(to_megatron_module, "BLOCK_BYTES", 100 * HIDDEN * 2)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_there_and_back_is_the_same_folder(tmp_path: Path, model: str, dtype: torch.dtype) -> None:
    source = make_folder(tmp_path / "source", model, dtype)
    add_predictor(source)
    seen: list[tuple[int, int]] = []
    there = to_megatron(source, tmp_path / "checkpoint", lambda *done: seen.append(done))
    back = to_hf(tmp_path / "checkpoint", tmp_path / "back", lambda *done: seen.append(done))
    assert_same_folder(source, tmp_path / "back")
    assert there == back and there.size == sum(
        t.nbytes for t in load_file(source / "model.safetensors").values()
    )
    assert seen == [(part, 5) for part in range(1, 6)] * 2


def test_a_checkpoint_is_complete_and_checked(tmp_path: Path) -> None:
    to_megatron(make_folder(tmp_path / "source"), tmp_path / "checkpoint", quietly)
    verify(tmp_path / "checkpoint")
    listed = json.loads((tmp_path / "checkpoint" / "manifest.json").read_text())["files"]
    assert {
        ".metadata",
        "common.pt",
        "metadata.json",
        "hf/config.json",
        "hf/tokenizer.json",
    } < listed.keys()
    assert not any(name.startswith("hf/model") for name in listed)


def test_padding_of_the_vocabulary_is_zero(tmp_path: Path) -> None:
    to_megatron(make_folder(tmp_path / "source"), tmp_path / "checkpoint", quietly)
    table = TensorReader(tmp_path / "checkpoint").read("output_layer.weight", (), 0, 2048)
    stored = load_file(tmp_path / "source" / "model.safetensors")["lm_head.weight"]
    assert torch.equal(table[:VOCABULARY], stored) and not table[VOCABULARY:].any()


def test_large_models_come_in_shards_with_an_index(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "source")
    to_megatron(source, tmp_path / "checkpoint", quietly)
    to_hf(tmp_path / "checkpoint", tmp_path / "back", quietly, max_shard_bytes=20_000)
    index = json.loads((tmp_path / "back" / "model.safetensors.index.json").read_text())
    before = load_file(source / "model.safetensors")
    assert (
        index["weight_map"].keys() == before.keys() and len(set(index["weight_map"].values())) > 2
    )
    for name, file in index["weight_map"].items():
        assert torch.equal(load_file(tmp_path / "back" / file)[name], before[name])
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in before.values())
    for file in set(index["weight_map"].values()):
        tensors = load_file(tmp_path / "back" / file)
        assert len(tensors) == 1 or sum(tensor.nbytes for tensor in tensors.values()) <= 20_000
    to_megatron(tmp_path / "back", tmp_path / "again", quietly)
    to_hf(tmp_path / "again", tmp_path / "whole", quietly)
    assert_same_folder(source, tmp_path / "whole")


def test_a_cast_model_says_so_in_its_config(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "source", dtype=torch.float32)
    add_predictor(source)
    to_megatron(source, tmp_path / "checkpoint", quietly)
    to_hf(tmp_path / "checkpoint", tmp_path / "back", quietly, dtype=torch.float16)
    for name, tensor in load_file(source / "model.safetensors").items():
        assert torch.equal(load_file(tmp_path / "back" / "model.safetensors")[name], tensor.half())
    before, after = (
        json.loads((folder / "config.json").read_text()) for folder in (source, tmp_path / "back")
    )
    assert after == before | {"dtype": "float16"}
    assert (tmp_path / "back" / FILE).read_bytes() == (source / FILE).read_bytes()


def change(folder: Path, **changes: torch.Tensor | None) -> None:
    """Replace, add or (None) remove tensors of a folder; `__` in a name stands for a dot."""
    tensors: dict[str, Any] = load_file(folder / "model.safetensors")
    tensors |= {name.replace("__", "."): tensor for name, tensor in changes.items()}
    save_file(
        {name: t for name, t in tensors.items() if t is not None}, folder / "model.safetensors"
    )


def test_an_output_layer_that_equals_its_tied_embedding_is_stored_once(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "source", "qwen3-tied")
    shutil.copytree(source, tmp_path / "both")
    change(
        tmp_path / "both",
        lm_head__weight=load_file(source / "model.safetensors")["model.embed_tokens.weight"],
    )
    done = to_megatron(tmp_path / "both", tmp_path / "checkpoint", quietly)
    assert "lm_head.weight is tied" in done.remark
    to_hf(tmp_path / "checkpoint", tmp_path / "back", quietly)
    assert_same_folder(source, tmp_path / "back")


def test_an_output_layer_that_differs_from_its_tied_embedding_is_refused(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "source", "qwen3-tied")
    table = load_file(source / "model.safetensors")["model.embed_tokens.weight"].clone()
    table[-1, -1] += 1
    change(source, lm_head__weight=table)
    with pytest.raises(ValueError, match=r"lm_head\.weight differs .*tie_word_embeddings"):
        to_megatron(source, tmp_path / "checkpoint", quietly)


Q = "model__layers__2__self_attn__q_proj__weight"
WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "missing": (
        {},
        {Q: None},
        r"source lacks 1 tensors.* model\.layers\.2\.self_attn\.q_proj\.weight",
    ),
    "extra": ({}, {"model__extra": torch.ones(1)}, r"no place for, the first model\.extra"),
    "shape": (
        {},
        {Q: torch.ones(5, 5)},
        r"layers\.2\.self_attn\.q_proj\.weight has shape \(5, 5\).*\(18, 10\)",
    ),
    "dtype": (
        {},
        {Q: torch.ones(18, 10)},
        r"layers\.2\.self_attn\.q_proj\.weight is torch.float32",
    ),
    "numbers": (
        {},
        {Q: torch.ones(18, 10).int()},
        r"layers\.2\.self_attn\.q_proj\.weight is stored as I32",
    ),
    "layers": (
        {"num_hidden_layers": 2},
        {},
        r"the first model\.layers\.2\.input_layernorm\.weight",
    ),
    "family": ({"model_type": "gemma3"}, {}, r"gemma3.*qwen3_moe"),
    "bias": ({"attention_bias": True}, {}, r"attention_bias=True is not supported"),
    "key": ({"hidden_size": None}, {}, r"config\.json lacks hidden_size"),
}


@pytest.mark.parametrize(("settings", "tensors", "message"), WRONG.values(), ids=WRONG)
def test_a_folder_that_does_not_fit_is_named_down_to_the_tensor(
    tmp_path: Path, settings: dict[str, Any], tensors: dict[str, Any], message: str
) -> None:
    source = make_folder(tmp_path / "source")
    config = json.loads((source / "config.json").read_text()) | settings
    config = {key: value for key, value in config.items() if value is not None}
    (source / "config.json").write_text(json.dumps(config))
    change(source, **tensors)
    with pytest.raises(ValueError, match=message):
        to_megatron(source, tmp_path / "checkpoint", quietly)
    assert [folder.name for folder in tmp_path.iterdir()] == ["source"]


def test_a_truncated_folder_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "source")
    content = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(content[:-1000])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        to_megatron(source, tmp_path / "checkpoint", quietly)


@pytest.mark.parametrize("victim", ["__1_0.distcp", ".metadata", "hf/tokenizer.json"])
def test_a_changed_byte_is_noticed(tmp_path: Path, victim: str) -> None:
    to_megatron(make_folder(tmp_path / "source"), tmp_path / "checkpoint", quietly)
    file = tmp_path / "checkpoint" / victim
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamagedCheckpoint, match=file.name):
        to_hf(tmp_path / "checkpoint", tmp_path / "back", quietly)
    assert not (tmp_path / "back").exists()


def rewrite_config(checkpoint: Path, **settings: Any) -> None:
    file = checkpoint / "hf" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    write_manifest(checkpoint)


def test_a_checkpoint_of_another_model_than_its_config_is_named_down_to_the_tensor(
    tmp_path: Path,
) -> None:
    to_megatron(make_folder(tmp_path / "source"), tmp_path / "checkpoint", quietly)
    for settings, message in (
        (
            {"intermediate_size": 8},
            r"mlp\.linear_fc1\.weight has shape \(3, 14, 10\), .*\(3, 16, 10\)",
        ),
        (
            {"intermediate_size": MLP, "vocab_size": 5000},
            r"word_embeddings\.weight has shape \(2048, 10\)",
        ),
        ({"vocab_size": VOCABULARY, "model_type": "qwen2"}, r"lacks 1 tensors.*linear_qkv\.bias"),
        ({"model_type": "llama"}, r"2 tensors that the model has no place for, .*k_layernorm"),
    ):
        rewrite_config(tmp_path / "checkpoint", **settings)
        with pytest.raises(ValueError, match=message):
            to_hf(tmp_path / "checkpoint", tmp_path / "back", quietly)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DamagedCheckpoint, match="no complete checkpoint"):
        to_hf(make_folder(tmp_path / "source"), tmp_path / "back", quietly)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_folder(tmp_path / "source")

    def full(done: int, total: int) -> None:
        if done == 3:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        to_megatron(source, tmp_path / "checkpoint", full)
    to_megatron(source, tmp_path / "checkpoint", quietly)
    with pytest.raises(OSError, match="No space left"):
        to_hf(tmp_path / "checkpoint", tmp_path / "back", full)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["checkpoint", "source"]


def test_another_padding_of_the_vocabulary_and_another_cut_read_the_same(tmp_path: Path) -> None:
    """As a run writes that spreads every tensor over ranks."""
    source = make_folder(tmp_path / "source", "moe")
    to_megatron(source, tmp_path / "checkpoint", quietly)
    reader = TensorReader(tmp_path / "checkpoint")
    shutil.copytree(tmp_path / "checkpoint" / "hf", tmp_path / "cut" / "hf")
    chunks = [chunk for key in sorted(reader.names()) for chunk in cut(reader, key)]
    write_checkpoint(tmp_path / "cut", [chunks[::2], chunks[1::2]], (), lambda done: None)
    write_manifest(tmp_path / "cut")
    to_hf(tmp_path / "cut", tmp_path / "back", quietly)
    assert_same_folder(source, tmp_path / "back")


def test_a_hole_in_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    to_megatron(make_folder(tmp_path / "source"), tmp_path / "checkpoint", quietly)
    reader = TensorReader(tmp_path / "checkpoint")
    shutil.copytree(tmp_path / "checkpoint" / "hf", tmp_path / "cut" / "hf")
    chunks = [chunk for key in sorted(reader.names()) for chunk in cut(reader, key)]
    hole = next(chunk for chunk in chunks if chunk.key.endswith("linear_proj.weight"))
    chunks.remove(hole)
    write_checkpoint(tmp_path / "cut", [chunks], (), lambda done: None)
    write_manifest(tmp_path / "cut")
    with pytest.raises(ValueError, match=r"does not hold all of decoder.*linear_proj\.weight\[0\]"):
        to_hf(tmp_path / "cut", tmp_path / "back", quietly)


def cut(reader: TensorReader, key: str) -> list[TensorBlock]:
    """The tensor, every layer and expert in three pieces along its last axis, vocabularies padded
    less.
    """
    shape = reader.shape(key)
    whole = reader.read(key, (), 0, shape[0])
    if key in ("embedding.word_embeddings.weight", "output_layer.weight"):
        whole, shape = whole[:1030], (1030, *shape[1:])
    axes = {"decoder.layers.mlp.experts": 2, "decoder.layers.": 1}
    lead = next((count for prefix, count in axes.items() if key.startswith(prefix)), 0)
    chunks = []
    for index in (
        torch.cartesian_prod(*(torch.arange(size) for size in shape[:lead]))
        .reshape(-1, lead)
        .tolist()
        if lead
        else [[]]
    ):
        for piece in range(3):
            edges = [shape[-1] * piece // 3, shape[-1] * (piece + 1) // 3]
            block = whole[tuple(index)][..., edges[0] : edges[1]].clone()
            sizes = (*(1 for _ in index), *block.shape)
            offset = (*index, *(0 for _ in block.shape[:-1]), edges[0])
            chunks.append(TensorBlock(key, shape, offset, sizes, whole.dtype, block.clone))
    return chunks


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("direction", ["to Megatron", "to HF"])
def test_after_any_fault_of_the_disk_the_output_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direction: str, kind: str
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    source, checkpoint = make_folder(tmp_path / "source"), tmp_path / "checkpoint"
    to_megatron(source, checkpoint, quietly)
    (tmp_path / "out.partial").write_text("the user's")
    (tmp_path / "out.retired").mkdir()
    names = {path.name for path in tmp_path.iterdir()}
    convert = (
        (lambda out: to_megatron(source, out, quietly))
        if direction == "to Megatron"
        else (lambda out: to_hf(checkpoint, out, quietly))
    )
    out = tmp_path / "out"
    # A conversion takes some time, so only some of the calls have their fault here. torch writes in
    # many small pieces.
    some = 61 if direction == "to Megatron" else 7
    for fault in itertools.islice(each_fault(kind), 0, None, some):
        with fault():
            convert(out)
        if out.exists() and direction == "to Megatron":
            verify(out)
        if kind != "killed":
            assert {path.name for path in tmp_path.iterdir()} <= {*names, "out"}
        shutil.rmtree(out, ignore_errors=True)
    convert(out)
    assert {path.name for path in tmp_path.iterdir()} == {*names, "out"}
    assert (tmp_path / "out.partial").read_text() == "the user's"
