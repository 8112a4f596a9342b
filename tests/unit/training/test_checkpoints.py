"""Which checkpoints a run keeps, believes and continues from."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from megatron_trace.config import CheckpointConfig, Config
from megatron_trace.files.atomic import partial_path
from megatron_trace.policy.manifest import verify, write_manifest
from megatron_trace.training.checkpoint_folders import complete, newest_whole, superseded
from megatron_trace.training.checkpoints import Checkpoints
from megatron_trace.training.identity import OtherRun, check_same, identity
from megatron_trace.training.run_state import RunState, read_state

MODEL = {
    "model_type": "qwen3",
    "hidden_size": 64,
    "rope_parameters": {"rope_theta": 1e4},
    "dtype": "float32",
}
CONTENTS = {"data.train": "2 tasks with SHA-256 a", "model.weights": "1 files with SHA-256 b"}


class FakeTrainer:
    """Writes one file a checkpoint; `problem` is what it then reports."""

    checkpoint_bytes = 100

    def __init__(self) -> None:
        self.problem: str | None = ""
        self.folder = Path()

    def at_rest(self) -> bool:
        return True

    def begin_checkpoint(self, folder: Path) -> str:
        (folder / "__0_0.distcp").write_text("weights")
        return ""

    def finish_checkpoint(self, wait: bool) -> str | None:
        return self.problem if not wait or self.problem is not None else ""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "qwen3"}')
    return tmp_path / "model"


def make(tmp_path: Path, model: Path, **settings) -> tuple[Checkpoints, FakeTrainer, Path]:
    trainer, folder = FakeTrainer(), tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder, CheckpointConfig(**settings), trainer, model, torch.float32)  # type: ignore[arg-type]
    return checkpoints, trainer, folder


def problem_of(path: Path) -> str:
    try:
        verify(path)
    except ValueError as error:
        return str(error)
    return ""


def test_a_checkpoint_appears_only_when_it_is_complete(tmp_path: Path, model: Path) -> None:
    checkpoints, trainer, folder = make(tmp_path, model)
    trainer.problem = None  # still writing
    checkpoints.begin(RunState(step=3, tasks_taken=7))
    checkpoints.poll()
    assert complete(folder) == []
    assert not (folder / "latest").exists()
    trainer.problem = ""
    checkpoints.poll()
    assert complete(folder) == [3]
    assert (folder / "latest").read_text() == "step_00003"
    assert read_state(folder / "step_00003") == RunState(step=3, tasks_taken=7)
    assert (folder / "step_00003" / "hf" / "config.json").exists()
    verify(folder / "step_00003")


def test_the_newest_and_every_kth_are_kept(tmp_path: Path, model: Path) -> None:
    checkpoints, _, folder = make(tmp_path, model, keep_last=2, keep_every=4)
    for step in range(1, 11):
        checkpoints.begin(RunState(step=step))
        checkpoints.poll()
    assert complete(folder) == [4, 8, 9, 10]
    assert superseded([1, 2, 3], CheckpointConfig(keep_last=1)) == [1, 2]


def test_what_is_due(tmp_path: Path, model: Path) -> None:
    checkpoints, _, _ = make(tmp_path, model, every=4)
    assert [step for step in range(1, 11) if checkpoints.due(step, last=step == 10)] == [4, 8, 10]


def test_a_write_that_fails_costs_the_checkpoint_only_and_is_told(
    tmp_path: Path, model: Path
) -> None:
    checkpoints, trainer, folder = make(tmp_path, model)
    checkpoints.begin(RunState(step=1))
    checkpoints.poll()
    trainer.problem = "No space left on device"
    checkpoints.begin(RunState(step=2))
    checkpoints.poll()
    (event,) = checkpoints.take_events()
    assert event.startswith(
        "the checkpoint of step 2 could not be saved (the newest is that of step 1): "
    )
    assert event.endswith("No space left on device")
    assert {path.name for path in folder.iterdir()} == {"step_00001", "latest"}
    assert "step_00001" in checkpoints.hint()


def test_a_checkpoint_counts_as_saved_even_if_its_name_could_not_be_noted(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints, _, folder = make(tmp_path, model)
    fsync = os.fsync

    def full(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(partial_path(Path("latest")).name):
            raise OSError("No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    checkpoints.begin(RunState(step=1))
    checkpoints.poll()
    (event,) = checkpoints.take_events()
    assert event.startswith("the checkpoint of step 1 is saved, but")
    assert "step_00001" in checkpoints.hint()
    assert {path.name for path in folder.iterdir()} == {"step_00001"}
    make(tmp_path, model)  # a later start


def test_a_checkpoint_that_would_not_fit_is_not_begun(tmp_path: Path, model: Path) -> None:
    checkpoints, trainer, _ = make(tmp_path, model)
    trainer.checkpoint_bytes = 10**18
    checkpoints.begin(RunState(step=1))
    (event,) = checkpoints.take_events()
    assert "about 1000000000.000 GB are needed" in event and str(tmp_path) in event


def test_the_end_of_a_run_saves_what_is_not_saved(tmp_path: Path, model: Path) -> None:
    checkpoints, _, folder = make(tmp_path, model)
    assert not checkpoints.finish(RunState(step=0))
    assert checkpoints.finish(RunState(step=5))
    assert complete(folder) == [5]


def test_what_a_crash_left_half_written_is_removed(tmp_path: Path, model: Path) -> None:
    partial_path(tmp_path / "checkpoints" / "step_00004").mkdir(parents=True)
    partial_path(tmp_path / "checkpoints" / "latest").write_text("step_0")
    _, _, folder = make(tmp_path, model)
    assert not list(folder.iterdir())


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(
    tmp_path: Path, model: Path
) -> None:
    checkpoints, _, folder = make(tmp_path, model, keep_last=3)
    for step in (1, 2):
        checkpoints.begin(RunState(step=step))
        checkpoints.poll()
    (folder / "step_00002" / "__0_0.distcp").write_text("weightz")
    told: list[str] = []
    found = newest_whole(folder, problem_of, told.append)
    assert found is not None
    assert found[1].step == 1
    assert "the checkpoint of step 2 is damaged and is not used" in told[0]
    assert "__0_0.distcp" in told[0]
    assert complete(folder) == [1]


def test_without_any_whole_checkpoint_there_is_nothing_to_continue(tmp_path: Path) -> None:
    assert newest_whole(tmp_path / "none", problem_of, print) is None
    (tmp_path / "step_00001").mkdir()
    write_manifest(tmp_path / "step_00001")
    (tmp_path / "step_00001" / "manifest.json").unlink()
    assert newest_whole(tmp_path, problem_of, lambda text: None) is None


def test_a_state_of_another_version_counts_as_damage(tmp_path: Path) -> None:
    for step in (1, 2):
        folder = tmp_path / f"step_0000{step}"
        folder.mkdir()
        state = asdict(RunState(step)) | ({"no_such_field": 1} if step == 2 else {})
        (folder / "state.json").write_text(json.dumps(state))
        write_manifest(folder)
    told: list[str] = []
    found = newest_whole(tmp_path, problem_of, told.append)
    assert found is not None and found[1].step == 1
    assert "its state cannot be used" in told[0] and "no_such_field" in told[0]


def with_settings(*overrides: str) -> Config:
    merged = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.from_dotlist(list(overrides)))
    return OmegaConf.to_object(merged)  # type: ignore[return-value]


def test_layout_and_place_may_change_between_starts() -> None:
    other = with_settings("parallel.tensor=2", "run.steps=7", "run.directory=elsewhere", "model.path=moved",
                          "rollout.workers=3", "checkpoint.every=1", "evaluation.every=1",
                          "learning.batching.pack=rows", "learning.batching.merge=false",
                          "environment.options.search_qa.corpus=elsewhere-*.tar")  # fmt: skip
    check_same(
        Path("c"),
        identity(with_settings("environment.options.search_qa.corpus=here-*.tar"), MODEL, CONTENTS),
        identity(other, MODEL | {"dtype": "bfloat16"}, CONTENTS),
    )


MINE = "from megatron_trace.allocation import Strategy\n\n\nclass Mine(Strategy):\n    pass\n\n\n"


def test_a_plug_in_file_is_known_by_its_content_wherever_it_lies(tmp_path: Path) -> None:
    def identity_with(folder: str, text: str) -> dict[str, Any]:
        file = tmp_path / folder / "mine.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(MINE + text)
        return identity(with_settings(f"allocation.strategy={file}"), MODEL, CONTENTS)

    here = identity_with("here", "# a strategy")
    check_same(Path("c"), here, identity_with("there", "# a strategy"))
    with pytest.raises(OtherRun, match=r"allocation\.strategy: 'mine\.py with SHA-256 "):
        check_same(Path("c"), here, identity_with("there", "# another strategy"))


def test_a_run_may_find_its_retriever_elsewhere_but_not_search_otherwise() -> None:
    def identity_with(place: str, *more: str) -> dict[str, Any]:
        option = "environment.options.search_qa"
        places = [f"{option}.retriever={place}", f"{option}.retriever_timeout_s={len(place)}"]
        return identity(with_settings(*places, *more), MODEL, CONTENTS)

    here = identity_with("http://node-1:8000/retrieve")
    check_same(Path("c"), here, identity_with("http://node-27:8000/retrieve"))
    with pytest.raises(OtherRun, match=r"search_qa\.score"):
        other = identity_with(
            "http://node-1:8000/retrieve", "environment.options.search_qa.score=f1"
        )
        check_same(Path("c"), here, other)


@pytest.mark.parametrize(
    ("settings", "model", "contents", "named"),
    [
        (["learning.optimizer.learning_rate=0.5"], MODEL, CONTENTS, "learning_rate: 1e-06 in the checkpoint, 0.5 now"),
        (["learning.advantage.name=grpo"], MODEL, CONTENTS, "advantage.name: 'belief' in the checkpoint, 'grpo' now"),
        (["run.seed=4"], MODEL, CONTENTS, "run.seed: 0 in the checkpoint, 4 now"),
        (["precision.train=float32"], MODEL, CONTENTS, "precision.train: 'bf16' in the checkpoint, 'float32' now"),
        ([], MODEL | {"hidden_size": 32}, CONTENTS, "model.config.hidden_size: 64 in the checkpoint, 32 now"),
        ([], MODEL | {"rope_parameters": {"rope_theta": 1e6}}, CONTENTS, "model.config.rope_parameters.rope_theta"),
        ([], MODEL, CONTENTS | {"data.train": "2 tasks with SHA-256 c"}, "data.train: '2 tasks with SHA-256 a' in"),
        (["environment.options.search_qa.top_k=9"], MODEL, CONTENTS, "search_qa.top_k: 'absent' in"),
        ([], MODEL, CONTENTS | {"model.weights": "1 files with SHA-256 d"}, "model.weights: '1 files with SHA"),
    ],
)  # fmt: skip
def test_another_model_setting_or_data_is_refused_by_name(settings, model, contents, named) -> None:
    before = identity(with_settings(), MODEL, CONTENTS)
    with pytest.raises(OtherRun, match="belongs to another model or configuration") as caught:
        check_same(Path("c"), before, identity(with_settings(*settings), model, contents))
    assert named in str(caught.value)


def test_the_time_that_a_checkpoint_took_is_told_once(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 107.5])
    monkeypatch.setattr("megatron_trace.training.checkpoints.time.monotonic", lambda: next(clock))
    checkpoints, _, _ = make(tmp_path, model)
    checkpoints.begin(RunState(step=1))
    assert checkpoints.take_duration() is None
    checkpoints.poll(wait=True)
    assert checkpoints.take_duration() == 7.5
    assert checkpoints.take_duration() is None
