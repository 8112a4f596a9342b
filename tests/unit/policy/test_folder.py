"""HF folders and the predictor beside them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from megatron_trace.models.predictor import (
    FILE,
    NAMES,
    PredictorHead,
    load_predictor,
    shapes,
)
from megatron_trace.policy import hf
from megatron_trace.policy.hf_writer import write_folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"model_type": "qwen3", "torch_dtype": "bfloat16"})
    )
    (folder / "tokenizer.json").write_text("{}")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text("{{ tools }}")
    (folder / hf.INDEX).write_text(json.dumps({"weight_map": {}}))
    return folder


TENSORS = {f"layer.{i}": torch.full((4, 4), float(i)) for i in range(5)}
METADATA = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in TENSORS.items()]


@pytest.mark.parametrize(("limit", "files"), [(1 << 30, 1), (130, 3)])
def test_a_folder_reads_back_what_was_written(
    tmp_path: Path, source: Path, limit: int, files: int
) -> None:
    path = tmp_path / "out"
    extra = {FILE: {"predictor.bias": torch.ones(1)}}
    write_folder(path, source, TENSORS.items(), METADATA, extra, max_shard_bytes=limit)
    assert len(list(path.glob("model*.safetensors"))) == files
    reader = hf.HFReader(path)
    assert reader.names() == TENSORS.keys()
    assert all(torch.equal(reader.read(name), tensor) for name, tensor in TENSORS.items())
    assert [reader.meta(name) for name in TENSORS] == METADATA
    assert (path / "tokenizer.json").exists() and (
        path / "additional_chat_templates/tools.jinja"
    ).exists()
    assert (path / hf.INDEX).exists() is (files > 1)
    stored = [
        name
        for file in path.glob("model*")
        if file.suffix == ".safetensors"
        for name in load_file(file)
    ]
    assert sorted(stored) == sorted(TENSORS)


def test_a_tensor_may_come_in_pieces_and_of_another_dtype(tmp_path: Path, source: Path) -> None:
    one, other = torch.randn(5, 3), torch.randn(7).bfloat16()
    pieces = [("one", one[:2]), ("one", one[2:4]), ("one", one[4:]), ("other", other)]
    metadata = [("one", torch.bfloat16, (5, 3)), ("other", torch.float32, (7,))]
    write_folder(tmp_path / "out", source, pieces, metadata, {})
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(stored["one"], one.bfloat16())
    assert torch.equal(stored["other"], other.float())


@pytest.mark.parametrize(
    "pieces",
    [
        [("one", torch.zeros(2, 3))],
        [("one", torch.zeros(4, 3)), ("other", torch.zeros(2))],
        [("other", torch.zeros(2)), ("one", torch.zeros(3, 3))],
        [("one", torch.zeros(3, 3)), ("other", torch.zeros(2)), ("third", torch.zeros(1))],
    ],
    ids=["too few rows", "too many rows", "another order", "one more"],
)
def test_pieces_that_are_not_the_announced_tensors_are_refused(
    tmp_path: Path, source: Path, pieces: list[tuple[str, torch.Tensor]]
) -> None:
    metadata = [("one", torch.float32, (3, 3)), ("other", torch.float32, (2,))]
    with pytest.raises(ValueError, match=r"where one .* was due|is not among the announced"):
        write_folder(tmp_path / "out", source, pieces, metadata, {})
    assert [folder.name for folder in tmp_path.iterdir()] == ["source"]


def test_config_json_travels_byte_for_byte_unless_it_must_state_another_dtype(
    tmp_path: Path, source: Path
) -> None:
    before = (source / "config.json").read_bytes()
    for dtype, after in ((None, before), (torch.bfloat16, before)):
        write_folder(tmp_path / "out", source, TENSORS.items(), METADATA, {}, config_dtype=dtype)
        assert (tmp_path / "out" / "config.json").read_bytes() == after
    write_folder(
        tmp_path / "out", source, TENSORS.items(), METADATA, {}, config_dtype=torch.float32
    )
    assert hf.read_config(tmp_path / "out") == {"model_type": "qwen3", "dtype": "float32"}


def test_a_failed_export_leaves_the_old_folder(tmp_path: Path, source: Path) -> None:
    path = tmp_path / "out"
    write_folder(path, source, TENSORS.items(), METADATA, {})
    before = sorted(file.name for file in path.iterdir())

    def broken() -> Iterator[tuple[str, torch.Tensor]]:
        yield "layer.0", torch.zeros(4, 4)
        raise RuntimeError("a rank died")

    with pytest.raises(RuntimeError, match="a rank died"):
        write_folder(path, source, broken(), METADATA, {})
    assert sorted(file.name for file in path.iterdir()) == before
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["out", "source"]
    assert torch.equal(hf.HFReader(path).read("layer.1"), TENSORS["layer.1"])


def test_an_export_replaces_the_old_folder(tmp_path: Path, source: Path) -> None:
    path = tmp_path / "out"
    write_folder(path, source, TENSORS.items(), METADATA, {})
    changed = {name: tensor + 1 for name, tensor in TENSORS.items()}
    write_folder(path, source, changed.items(), METADATA, {})
    assert torch.equal(hf.HFReader(path).read("layer.1"), changed["layer.1"])
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["out", "source"]


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds neither model\.safetensors"):
        hf.HFReader(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        hf.read_config(tmp_path)


def taught_head() -> PredictorHead:
    head = PredictorHead(8)
    torch.nn.init.normal_(head.weight)
    torch.nn.init.normal_(head.bias)
    return head


def test_a_stored_predictor_is_used(tmp_path: Path) -> None:
    stored = taught_head()
    save_file(
        {name: dict(stored.named_parameters())[name.removeprefix("predictor.")] for name in NAMES},
        tmp_path / FILE,
    )
    head = PredictorHead(8)
    assert load_predictor(head, tmp_path)
    hidden = torch.randn(2, 8)
    assert torch.equal(head(hidden), stored(hidden))
    assert not load_predictor(head, tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("stored", "fault"),
    [
        ({"predictor.weight": (1, 6), "predictor.bias": (1,)}, r"weight is \(1, 6\).*\(1, 8\)"),
        ({"predictor.weight": (1, 8), "predictor.bias": (2,)}, r"bias is \(2,\).*\(1,\)"),
        ({"predictor.weight": (1, 8)}, r"bias is absent.*\(1,\)"),
        (
            {"predictor.weight": (1, 8), "predictor.bias": (1,), "predictor.fc1.bias": (4,)},
            r"fc1\.bias is \(4,\).*no such tensor",
        ),
    ],
)
def test_a_predictor_of_another_shape_is_refused_with_a_remedy(
    tmp_path: Path, stored: dict[str, tuple[int, ...]], fault: str
) -> None:
    save_file({name: torch.ones(shape) for name, shape in stored.items()}, tmp_path / FILE)
    head = taught_head()
    before = head.weight.clone()
    with pytest.raises(ValueError, match=rf"{fault}; fit the predictor again with tools/fit_pred"):
        load_predictor(head, tmp_path)
    assert torch.equal(head.weight, before)


def test_the_names_and_shapes_are_those_of_the_head() -> None:
    state = PredictorHead(8).state_dict()
    assert {f"predictor.{key}": tuple(tensor.shape) for key, tensor in state.items()} == shapes(8)
    assert tuple(shapes(8)) == NAMES
