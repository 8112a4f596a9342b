"""Whatever happens while checkpoints are written, or to their files: no complete one is lost, no
event says so, and the next start goes through.
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from megatron_trace.config import CheckpointConfig
from megatron_trace.files.atomic import leftovers
from megatron_trace.policy.manifest import DamagedCheckpoint, verify, write_manifest
from megatron_trace.training.checkpoint_folders import complete, newest_whole, step_folder
from megatron_trace.training.checkpoints import Checkpoints
from megatron_trace.training.run_state import RunState, read_state, write_state
from tests.unit.faults import KINDS, each_fault


class Ranks:
    """The train ranks: they write two files a checkpoint, and report what the disk says."""

    checkpoint_bytes = 100

    def at_rest(self) -> bool:
        return True

    def begin_checkpoint(self, folder: Path) -> str:
        try:
            for name in ("__0_0.distcp", ".metadata"):
                with open(folder / name, "wb") as file:
                    file.write(b"weights")
        except OSError as error:
            return str(error)
        return ""

    def finish_checkpoint(self, wait: bool) -> str:
        return ""


def problem_of(path: Path) -> str:
    try:
        verify(path)
    except DamagedCheckpoint as error:
        return str(error)
    return ""


def no_event(text: str) -> None:
    raise AssertionError(text)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Checkpoints]:
    # What is forced to the disk is told by the calls; waiting for it takes most of the time here.
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "qwen3"}')

    def start(folder: Path) -> Checkpoints:
        settings = CheckpointConfig(keep_last=2)
        return Checkpoints(folder, settings, Ranks(), model, torch.float32)  # type: ignore[arg-type]

    return start


def save(checkpoints: Checkpoints, step: int) -> None:
    checkpoints.begin(RunState(step=step))
    checkpoints.poll(wait=True)


@pytest.mark.parametrize("kind", KINDS)
def test_no_fault_of_any_call_loses_a_complete_checkpoint_or_stops_the_next_start(
    tmp_path: Path, start: Callable[[Path], Checkpoints], kind: str
) -> None:
    for number, fault in enumerate(each_fault(kind)):
        folder = tmp_path / str(number)
        checkpoints = start(folder)
        save(checkpoints, 1)
        save(checkpoints, 2)
        with fault():
            # The oldest is removed with it.
            save(checkpoints, 3)
        there = complete(folder)
        found = newest_whole(folder, problem_of, no_event)
        assert found is not None and found[1].step == there[-1] >= 2
        for event in checkpoints.take_events():
            if match := re.match(r"the checkpoint of step (\d) could not be saved", event):
                assert int(match[1]) not in there
        again = start(folder)
        assert step_folder(folder, there[-1]).name in again.hint()
        save(again, 5)
        assert again.take_events() == []
        assert complete(folder)[-1] == 5 and leftovers(folder) == []
        assert (folder / "latest").read_text() == "step_00005"
        # Superseded checkpoints that a failing disk kept are removed as well.
        assert len(complete(folder)) == 2
        shutil.rmtree(folder)
    assert number > 15


def test_the_final_step_is_tried_again_after_a_write_that_failed(
    tmp_path: Path, start: Callable[[Path], Checkpoints]
) -> None:
    checkpoints = start(tmp_path / "c")
    fault = next(each_fault("full"))
    with fault():
        save(checkpoints, 3)
    (event,) = checkpoints.take_events()
    assert event.startswith("the checkpoint of step 3 could not be saved (there is none yet)")
    assert checkpoints.finish(RunState(step=3))
    assert complete(tmp_path / "c") == [3]


def test_nothing_is_saved_of_ranks_that_are_not_at_rest(
    tmp_path: Path, start: Callable[[Path], Checkpoints], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ranks, "at_rest", lambda ranks: False)
    assert not start(tmp_path / "c").finish(RunState(step=3))
    assert not (tmp_path / "c").exists()


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda data: None,
    "empty": lambda data: b"",
    "truncated": lambda data: data[:-1],
    "half": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
    "a bit": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "longer": lambda data: data + b"\n",
    "a list": lambda data: b"[]",
    "a number": lambda data: b"3",
    "null": lambda data: b"null",
    "no keys": lambda data: b"{}",
    "not UTF-8": lambda data: b"\xff\xfe" + data,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_whatever_is_wrong_with_any_file_the_checkpoint_before_is_used_and_the_run_says_so(
    tmp_path: Path, start: Callable[[Path], Checkpoints], damage: str
) -> None:
    whole = tmp_path / "whole"
    checkpoints = start(whole)
    save(checkpoints, 1)
    save(checkpoints, 2)
    files = [path for path in step_folder(whole, 2).rglob("*") if path.is_file()]
    assert len(files) == 5
    for number, file in enumerate(files):
        folder = Path(shutil.copytree(whole, tmp_path / str(number)))
        hurt = folder / file.relative_to(whole)
        data = DAMAGE[damage](hurt.read_bytes())
        hurt.unlink()
        if data is not None:
            hurt.write_bytes(data)
        # Space at the end of a manifest changes nothing that it says.
        if damage == "longer" and file.name == "manifest.json":
            continue
        told: list[str] = []
        found = newest_whole(folder, problem_of, told.append)
        assert found is not None and found[1].step == 1
        (event,) = told
        assert "the checkpoint of step 2 is damaged and is not used (kept as" in event
        assert len(list(folder.glob("step_00002.damaged-*"))) == 1
        start(folder)


def test_every_flipped_bit_of_a_manifest_is_damage_or_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    write_manifest(tmp_path)
    manifest = tmp_path / "manifest.json"
    data = manifest.read_bytes()
    unnoticed = []
    for place in range(len(data)):
        for bit in range(8):
            manifest.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
            try:
                verify(tmp_path)
            except DamagedCheckpoint:
                continue
            unnoticed.append(json.loads(manifest.read_text()) == json.loads(data))
    assert all(unnoticed)


WRONG = ({"step": "3"}, {"step": -1}, {"step": True}, {"identity": []}, {"allocation": None})


@pytest.mark.parametrize("wrong", WRONG)
def test_a_value_of_the_state_that_is_none_of_ours_is_refused(
    tmp_path: Path, wrong: dict[str, object]
) -> None:
    write_state(tmp_path, RunState(step=3))
    good = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps(good | wrong))
    with pytest.raises(ValueError, match=next(iter(wrong))):
        read_state(tmp_path)


@pytest.mark.parametrize("name", ["step", "updates", "allocation", "identity"])
def test_a_state_that_lacks_a_value_does_not_start_from_a_default(
    tmp_path: Path, name: str
) -> None:
    write_state(tmp_path, RunState(step=3))
    good = json.loads((tmp_path / "state.json").read_text())
    del good[name]
    (tmp_path / "state.json").write_text(json.dumps(good))
    with pytest.raises(ValueError, match=name):
        read_state(tmp_path)
