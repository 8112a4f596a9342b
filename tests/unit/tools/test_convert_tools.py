"""The two conversion commands, as a person runs them."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from huggingface_hub.serialization._base import parse_size_to_int
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("convert") / "source"
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=12,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    AutoModelForCausalLM.from_config(config).bfloat16().save_pretrained(folder)
    return folder


@pytest.fixture
def call(load_tool: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    def call(tool: str, *arguments: str | Path) -> None:
        module: ModuleType = load_tool(tool)
        monkeypatch.setattr(sys, "argv", [f"{tool}.py", *map(str, arguments)])
        module.main()

    return call


def test_there_and_back_gives_a_folder_that_transformers_loads(
    call: Any, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("convert_hf_to_megatron", "--hf", source, "--out", tmp_path / "checkpoint")
    options = ("--dtype", "float32", "--max-shard-size", "2KB")
    call(
        "convert_megatron_to_hf",
        "--checkpoint",
        tmp_path / "checkpoint",
        "--out",
        tmp_path / "back",
        *options,
    )
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all("21 tensors" in line for line in lines)
    assert (tmp_path / "back" / "model.safetensors.index.json").exists()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "back", dtype="auto")
    assert model.dtype is torch.float32
    before = load_file(source / "model.safetensors")
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor.float()) for name, tensor in before.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "gemma3"}, "gemma3"),
        ({"num_hidden_layers": 3}, "model.layers.2.input_layernorm.weight"),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(
    call: Any,
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    settings: dict[str, Any],
    message: str,
) -> None:
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((source / "config.json").read_text()) | settings
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SystemExit) as exit:
        call("convert_hf_to_megatron", "--hf", tmp_path, "--out", tmp_path / "out")
    assert exit.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert line.startswith("convert_hf_to_megatron.py: ") and message in line
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_not_overwritten(
    call: Any, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("dear")
    for tool, option in (
        ("convert_hf_to_megatron", "--hf"),
        ("convert_megatron_to_hf", "--checkpoint"),
    ):
        with pytest.raises(SystemExit, match="2"):
            call(tool, option, source, "--out", tmp_path)
        assert "is not overwritten" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("kind", ["an empty folder", "a link to nothing"])
def test_what_exists_is_never_replaced(
    call: Any, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    out = tmp_path / "out"
    if kind == "an empty folder":
        out.mkdir()
    else:
        out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(SystemExit, match="2"):
        call("convert_hf_to_megatron", "--hf", source, "--out", out)
    assert f"--out {out} exists; it is not overwritten" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_what_is_no_checkpoint_is_named(
    call: Any, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (source, tmp_path / "nowhere"):
        with pytest.raises(SystemExit, match="2"):
            call("convert_megatron_to_hf", "--checkpoint", folder, "--out", tmp_path / "out")
        assert f"{folder} is no complete checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["5GB", "500MB", "1.5GB", "20kb", "3TB", "12345"])
def test_sizes_mean_what_they_mean_in_transformers(load_tool: Any, text: str) -> None:
    right = int(text) if text.isdigit() else parse_size_to_int(text)
    assert load_tool("convert_megatron_to_hf").parse_size(text) == right


@pytest.mark.parametrize("text", ["", "GB", "5 apples", "0MB", "-1GB"])
def test_what_is_no_size_is_refused(load_tool: Any, text: str) -> None:
    with pytest.raises(ValueError, match="5GB or 500MB"):
        load_tool("convert_megatron_to_hf").parse_size(text)
