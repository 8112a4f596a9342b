"""A start policy that is not whole is refused in one line, before anything starts."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from megatron_trace.check.load import load_config
from megatron_trace.check.model import check_model
from megatron_trace.check.vocabulary import check_vocabulary
from megatron_trace.check.weights import INDEX, PREDICTOR, check_weights
from megatron_trace.config import SettingError

EXAMPLE = Path("examples/geo_hop/start_policy")
MODEL = "model.safetensors"
DOWN = "model.layers.1.mlp.down_proj.weight"
BIAS = "model.layers.0.self_attn.q_proj.bias"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE, tmp_path / "model"))


def check(folder: Path) -> None:
    config = load_config(None, [f"model.path={folder}", "rollout.max_history_tokens=512"])
    check_model(config)
    check_weights(config)
    check_vocabulary(config)


def split(folder: Path, shards: dict[str, Any] | None = None) -> None:
    """Two files and an index instead of model.safetensors."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"a.safetensors": names[:20], "b.safetensors": names[20:]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    weight_map = {name: file for file, part in parts.items() for name in part}
    index = {"weight_map": weight_map} if shards is None else shards
    (folder / INDEX).write_text(json.dumps(index))


def changed(**values: Any) -> Callable[[Path], Any]:
    """Sets keys of config.json; None removes one."""

    def change(folder: Path) -> None:
        file = folder / "config.json"
        model = json.loads(file.read_text()) | values
        file.write_text(json.dumps({key: one for key, one in model.items() if one is not None}))

    return change


def written(name: str, content: str | bytes) -> Callable[[Path], Any]:
    """Writes a file of the folder."""
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / name).write_bytes(data)


def cut(name: str, size: int) -> Callable[[Path], Any]:
    """Keeps the first bytes of a file."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def removed(*names: str) -> Callable[[Path], Any]:
    """Removes files."""
    return lambda folder: [(folder / name).unlink() for name in names]


def split_without(name: str) -> Callable[[Path], Any]:
    """Two files, of which one is removed."""
    return lambda folder: (split(folder), (folder / name).unlink())


def tensor(name: str, *shape: int, dtype: Any = np.float32) -> Callable[[Path], Any]:
    """Puts zeros of another shape or dtype in the place of a tensor, or adds one."""

    def change(folder: Path) -> None:
        file = folder / (PREDICTOR if name.startswith("predictor") else "model.safetensors")
        save_file(load_file(file) | {name: np.zeros(shape, dtype)}, file)

    return change


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config.json": (removed("config.json"), "has no config.json"),
    "config.json is no JSON": (written("config.json", "{"), "is not a JSON object"),
    "config.json is a list": (written("config.json", "[]"), "is not a JSON object"),
    "config.json is null": (written("config.json", "null"), "is not a JSON object"),
    "config.json in UTF-16": (written("config.json", "{}".encode("utf-16")), "not a JSON object"),
    "config.json too deep": (written("config.json", "[" * 10**5), "is not a JSON object"),
    "config.json is empty": (written("config.json", "{}"), "holds a None; supported is"),
    "architectures is a text": (changed(architectures="Qwen3"), "holds a None; supported is"),
    "architectures of numbers": (changed(architectures=[[3]]), r"holds a \[3\]; supported is"),
    "no model_type": (changed(model_type=None), "model_type=None is not supported"),
    "no hidden_size": (changed(hidden_size=None), "hidden_size=None must be a number"),
    "no vocab_size": (changed(vocab_size=None), "vocab_size=None must be a number"),
    "no positions": (changed(max_position_embeddings=None), "max_position_embeddings=None must"),
    "layers as a text": (changed(num_hidden_layers="4"), "num_hidden_layers='4' must be a number"),
    "no layers": (changed(num_hidden_layers=0), "num_hidden_layers=0 must be"),
    "heads as a truth value": (changed(num_attention_heads=True), "num_attention_heads=True must"),
    "heads that do not divide": (
        changed(num_key_value_heads=3),
        "num_key_value_heads=3 must divid",
    ),
    "rope_parameters is a list": (changed(rope_parameters=[1]), "must be of type dict"),
    "layer_types is a text": (changed(layer_types="full"), "must be of type list"),
    "an epsilon of text": (changed(rms_norm_eps="1e-6"), "must be of type int or float"),
    "more layers": (changed(num_hidden_layers=5, layer_types=None), "do not hold model.layers.4."),
    "a larger vocabulary": (changed(vocab_size=4096), "embed_tokens.weight has the shape"),
    "no tokens for the ids": (changed(vocab_size=100), "embed_tokens.weight has the shape"),
    "a narrower MLP": (changed(intermediate_size=100), "mlp.gate_proj.weight has the shape"),
    "more groups": (changed(num_key_value_heads=8), "k_proj.weight has the shape"),
    "a tensor turned": (tensor(DOWN, 512, 256), rf"{DOWN} has the shape \(512, 256\), and it must"),
    "a scalar": (tensor("model.norm.weight"), r"model.norm.weight has the shape \(\), and it must"),
    "64 bits": (tensor("model.norm.weight", 256, dtype=np.float64), "norm.weight is stored as F64"),
    "integers": (tensor("model.norm.weight", 256, dtype=np.int8), "norm.weight is stored as I8"),
    "a bias too many": (tensor(BIAS, 256), f"model.safetensors: {BIAS} has no place in the model"),
    "a predictor's bias": (
        tensor("predictor.bias", 2),
        r"^model.path = .*: predictor.safetensors holds .*'predictor.bias': \(\(2,\), 'F32'\).* and the policy",
    ),
    "another policy's predictor": (
        tensor("predictor.weight", 1, 64),
        r"\(1, 64\).* and the policy needs .*\(1, 256\).*; fit the predictor again with tools/fit",
    ),
    "a predictor of integers": (
        tensor("predictor.bias", 1, dtype=np.int8),
        r"holds .*'predictor.bias': \(\(1,\), 'I8'\).* and the policy needs",
    ),
    "a larger predictor": (tensor("predictor.fc3.bias", 2), "holds .*'predictor.fc3.bias'.* and"),
    "weights are a pipe": (
        lambda folder: (removed("model.safetensors")(folder), os.mkfifo(folder / MODEL)),
        "model.safetensors is no file",
    ),
    "no weights": (removed("model.safetensors", PREDICTOR), "holds no weights"),
    "only a predictor": (removed("model.safetensors"), "holds no weights"),
    "weights cut": (cut("model.safetensors", 100_000), "model.safetensors is damaged"),
    "weights cut in the header": (cut("model.safetensors", 100), "model.safetensors is damaged"),
    "empty weights": (cut("model.safetensors", 0), "model.safetensors is damaged"),
    "weights are a web page": (written("model.safetensors", "<html>" * 9), "is damaged"),
    "predictor cut": (cut(PREDICTOR, 100), "predictor.safetensors is damaged"),
    "a missing shard": (split_without("b.safetensors"), "b.safetensors cannot be read"),
    "an index without weight_map": (lambda folder: split(folder, {}), "has no weight_map"),
    "an index that is a list": (written(INDEX, "[]"), "has no weight_map"),
    "an index that is no JSON": (written(INDEX, "{"), "has no weight_map"),
    "a weight_map of lists": (written(INDEX, '{"weight_map": {"a": [1]}}'), "has no weight_map"),
    "an index of other tensors": (
        written(INDEX, '{"weight_map": {"x": "model.safetensors"}}'),
        "model.safetensors does not hold x",
    ),
    "no tokenizer": (removed("tokenizer.json"), "holds no tokenizer"),
    "tokenizer is no JSON": (written("tokenizer.json", "{"), "tokenizer.json is damaged"),
    "tokenizer is another JSON": (written("tokenizer.json", "{}"), "tokenizer.json is damaged"),
    "no chat template": (removed("chat_template.jinja"), "has no chat template"),
    "tokenizer_config is a list": (written("tokenizer_config.json", "[]"), "tokenizer_config.json"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_folder_that_is_not_whole_is_refused_in_one_line(folder: Path, name: str) -> None:
    break_it, message = FAULTS[name]
    break_it(folder)
    with pytest.raises(SettingError, match=message) as error:
        check(folder)
    assert str(error.value).startswith(f"model.path = '{folder}': ")
    assert "\n" not in str(error.value)


def test_whole_folders_pass_in_one_file_or_in_several(folder: Path) -> None:
    check(folder)
    split(folder)
    check(folder)
    (folder / PREDICTOR).unlink()
    check(folder)


@pytest.mark.parametrize(
    ("name", "source"), [("Qwen3-14B", "Qwen/Qwen3-14B"), ("mine", "<organisation>/<model>")]
)
def test_the_command_that_fetches_the_weights_is_named(folder: Path, name, source) -> None:
    path = folder.rename(folder.with_name(name))
    (path / "model.safetensors").unlink()
    with pytest.raises(SettingError) as error:
        check(path)
    assert f"hf download {source} --local-dir {path}" in str(error.value)
