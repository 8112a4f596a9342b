"""Whatever a config file or an override holds, it is read, or refused in one line."""

import os

import pytest

from megatron_trace.check.load import load_config
from megatron_trace.config import SettingError, check_bounds

BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefg", "bcdefgh", strict=True)
)

REFUSED_FILES = {
    "a tag that is none": "run: {steps: !foo 3}",
    "a tag that does not fit": "run: {steps: !!int abc}",
    "a date that is none": "run: {name: !!timestamp x}",
    "a truth value that is none": "run: {save_trees: !!bool maybe}",
    "bytes for a text": "run: {name: !!binary aGVsbG8=}",
    "a set": "run: {loggers: !!set {wandb}}",
    "an ordered map": "run: {name: !!omap [a: 1]}",
    "a Python object": "run: {name: !!python/name:os.system}",
    "a text that contains itself": "run: {loggers: &a [*a]}",
    "an unknown anchor": "run: {name: *nope}",
    "anchors that multiply": BOMB,
    "brackets without end": "run: " + "[" * 3000,
    "brackets too deep": "run: " + "[" * 3000 + "]" * 3000,
    "an open quote": "run: {name: 'a}",
    "a number too long for Python": "run: {steps: " + "9" * 5000 + "}",
    "two documents": "run: {steps: 3}\n---\nrun: {steps: 4}\n",
    "a text": "hello",
    "a number": "42",
    "null": "null",
    "a list": "- run",
    "a key that is a list": "? [run]\n: 3\n",
    "a key that is null": "null: 3\n",
    "a key that is a number": "1: 3\n",
    "a key that is empty": "'': 3\n",
    "a dotted key": "run.steps: 3\n",
    "one key as a number and as a text": "data: {heldout: {1: a, '1': b}}",
    "two keys of one text": "data: {heldout: {1.0: a, '1.0': b}}",
    "a merged section of other settings": "run: &r {steps: 3}\nstop: {<<: *r}\n",
    "a merge of a number": "run: {<<: 3}\n",
    "a section that is null": "run:\n",
    "a section that is a list": "run: [steps]\n",
    "a nested section that is a number": "learning: {optimizer: 3}\n",
    "a mapping for a text": "run: {name: {a: b}}\n",
    "a list for a mapping": "data: {heldout: [a.tar]}\n",
    "a mapping for a list": "run: {loggers: {wandb: true}}\n",
    "a list in a list": "run: {loggers: [[wandb]]}\n",
    "a list of options": "environment: {options: [a]}\n",
    "minutes for a number": "stop: {kl: 1:30}\n",
    "a floating-point number for an int": "run: {steps: 3.0}\n",
    "an interpolation without end": "run: {name: 'a${b'}",
    "an interpolation of a section": "run: ${stop}\n",
    "an interpolation of another type": "run: {steps: '${run.name}'}\n",
    "an interpolation of itself": "run: {name: '${oc.deprecated:run.name}'}\n",
    "a zero character": b"run: {steps: 3}\n\0",
    "a zero character in a text": 'model: {path: "a\\0b"}',
    "another encoding": "run: {name: caf\u00e9}".encode("latin-1"),
    "sixteen bits for a character": "run: {steps: 3}".encode("utf-16-le"),
    "all bytes": bytes(range(256)),
}


@pytest.mark.parametrize("name", REFUSED_FILES)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path, name: str) -> None:
    content, file = REFUSED_FILES[name], tmp_path / "run.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingError) as error:
        check_bounds(load_config(str(file)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "# nothing\n", "\ufeffrun: {seed: 0}\r\n", "---\n"])
def test_an_empty_file_a_byte_order_mark_and_windows_lines_are_read(tmp_path, content) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(content.encode())
    assert load_config(str(file)) == load_config(None)


def test_a_merged_mapping_is_read(tmp_path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("run: &r {seed: 3}\ndata: {heldout: {<<: {no: a}, 0123: b}}\n")
    config = load_config(str(file))
    assert (config.run.seed, config.data.heldout) == (3, {"no": "a", "0123": "b"})


def test_what_is_no_file_is_refused_in_one_line(tmp_path) -> None:
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    for path in (str(tmp_path), str(loop), f"{tmp_path}/none.yaml", "", "a\0b", "x" * 5000):
        with pytest.raises(SettingError, match=r"^--config = "):
            load_config(path)


@pytest.mark.parametrize(
    "override",
    [
        *("[=3", "]=3", "..=3", "run.=3", ".run=3", "run..name=3", "${x}=3", " run.steps=3"),
        *("run.loggers[0]=wandb", "run.loggers.0=wandb", "run.loggers={0: wandb}"),
        *("run.steps=1:30", "run.steps=0x10", "run.steps=1e3", f"run.steps={'9' * 5000}"),
        *("stop.kl=1e400", "stop.kl=true", "precision.train=no", "precision.train=1"),
        *("data.heldout=null", "data.heldout={1: a, '1': b}", "data.heldout.a.b=c"),
        *("run=${stop}", "run.loggers=${run.name}", "data.heldout=${run}", "run.steps={a"),
        *(f"model.path={os.fsdecode(bytes([255]))}", 'run.name="\\0"', "run.loggers=null"),
    ],
)
def test_an_override_that_cannot_be_used_is_refused_in_one_line(override: str) -> None:
    with pytest.raises(SettingError) as error:
        check_bounds(load_config(None, [override]))
    assert "\n" not in str(error.value)


def test_the_file_of_a_function_is_made_absolute(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(None, ["data.map=a/b.py:f"]).data.map == f"{tmp_path}/a/b.py:f"
    assert load_config(None, ["data.map=null"]).data.map is None
