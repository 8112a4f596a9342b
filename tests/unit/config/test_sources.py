"""Sources of tasks as they are written in a file or typed."""

import pytest
from omegaconf import OmegaConf

from megatron_trace.check.load import load_config
from megatron_trace.config import SettingError
from megatron_trace.config.sources import Source, heldout_sources, train_sources


def test_files_alone_are_one_source_without_a_name() -> None:
    data = load_config(None, ["data.train=a.jsonl", "data.map=/m.py:f"]).data
    assert train_sources(data) == [Source("data.train", "a.jsonl", map="/m.py:f")]


def test_several_sources_have_names_weights_and_functions(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "run.yaml"
    file.write_text(
        "data:\n"
        "  map: common.py:f\n"
        "  train:\n"
        "    maths: a-*.parquet\n"
        "    0123: {files: 010, weight: 2, map: own.py:g}\n"
        "  heldout: {x: x.jsonl, y: {files: y.jsonl, map: own.py:h}}\n"
    )
    data = load_config(str(file), ["data.train.0123.weight=0.5", "data.heldout.z=z.tar"]).data
    common = f"{tmp_path}/common.py:f"
    assert train_sources(data) == [
        Source("data.train.maths", "a-*.parquet", "maths", 1.0, common, prefix="maths/"),
        Source(
            "data.train.0123", "010", "0123", 0.5, f"{tmp_path}/own.py:g",
            "data.train.0123.map", "0123/",
        ),
    ]  # fmt: skip
    assert heldout_sources(data) == [
        Source("data.heldout.x", "x.jsonl", "x", map=common),
        Source("data.heldout.y", "y.jsonl", "y", 1.0, f"{tmp_path}/own.py:h", "data.heldout.y.map"),
        Source("data.heldout.z", "z.tar", "z", map=common),
    ]


def test_what_a_run_writes_down_is_read_back(tmp_path) -> None:
    config = load_config(None, ["data.train={a: '010', b: {files: '1e9', weight: 3}}"])
    OmegaConf.save(OmegaConf.structured(config), tmp_path / "config.yaml")
    assert load_config(str(tmp_path / "config.yaml")) == config
    assert config.data.train == {"a": "010", "b": {"files": "1e9", "weight": 3.0}}


@pytest.mark.parametrize(
    "text", ["{a,b}.jsonl", "{a.tar,b.tar}", "{000..003}", "0123", "[x]", "a: b"]
)
def test_a_pattern_with_braces_stays_a_pattern(text) -> None:
    config = load_config(None, [f"data.train={text}", f"data.heldout.x={text}"])
    assert (config.data.train, config.data.heldout) == (text, {"x": text})


def test_files_on_the_command_line_replace_the_sources_of_the_file(tmp_path) -> None:
    (tmp_path / "run.yaml").write_text("data: {train: {a: a.tar, b: b.tar}}\n")
    assert load_config(str(tmp_path / "run.yaml"), ["data.train=c.tar"]).data.train == "c.tar"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.train={a: {file: x}}", "data.train.a.file = 'x': no such key; did you mean files?"),
        ("data.train={a: {weight: 1}}", "data.train.a.files = None: must name data files"),
        ("data.train={a: {files: x, weight: 0}}", "data.train.a.weight = 0.0: must be a finite n"),
        ("data.train={a: {files: x, weight: -1}}", "data.train.a.weight = -1.0: must be a finite"),
        ("data.train={a: {files: x, weight: .inf}}", "data.train.a.weight = inf: must be a fin"),
        ("data.train={a: {files: x, weight: true}}", "data.train.a.weight = 'true': must be a f"),
        ("data.train={a: {files: x, weight: many}}", "data.train.a.weight = 'many': must be"),
        ("data.train={a: {files: x, map: [y]}}", "data.train.a.map = ['y']: must be FILE.py:FUN"),
        ("data.train={a: [x]}", "data.train.a = ['x']: must be of type str, or {files, weight"),
        ("data.heldout={a: {files: x, weight: 1}}", "data.heldout.a.weight = 1.0: must be left"),
    ],
)
def test_a_wrong_source_is_one_line_at_the_door(override, said) -> None:
    with pytest.raises(SettingError) as error:
        load_config(None, [override])
    assert str(error.value).startswith(said)


@pytest.mark.parametrize("given", ["{}", "[a.tar]"])
def test_a_file_that_names_no_source_is_refused(tmp_path, given) -> None:
    (tmp_path / "run.yaml").write_text(f"data: {{train: {given}}}\n")
    with pytest.raises(SettingError, match=r"^data\.train = .*: must be files, or name -> files"):
        load_config(str(tmp_path / "run.yaml"))


@pytest.mark.parametrize(
    "override",
    ["data.train={}", "data.train={{a: '{}'}}", "data.heldout={{a: {{files: '{}'}}}}"],
)
def test_a_url_with_a_password_is_refused_and_not_shown(override) -> None:
    with pytest.raises(
        SettingError, match=r"'https://\*\*\*@h/a\.jsonl': holds a password"
    ) as error:
        load_config(None, [override.format("https://me:wo@rd@h/a.jsonl")])
    assert "rd@" not in str(error.value)
    load_config(None, [override.format("hf://datasets/me/set@main/a.jsonl")])
