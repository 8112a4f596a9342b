import pytest

from megatron_trace.check.command import Command
from megatron_trace.config import Config
from megatron_trace.policy.manifest import write_manifest
from megatron_trace.training import run as runs
from megatron_trace.training.identity import OtherRun
from megatron_trace.training.inputs import RunInputs
from megatron_trace.training.resume import newest_state
from megatron_trace.training.run_folder import finished_file
from megatron_trace.training.run_state import RunState, write_state


@pytest.fixture
def finished(tmp_path, monkeypatch) -> Command:
    """A command whose run has all its results; what it trains on and by is
    `learning.optimizer.learning_rate`.
    """
    config = Config()
    config.run.directory, config.run.steps = str(tmp_path), 3
    same = {"learning.optimizer.learning_rate": 1e-6}
    checkpoint = runs.run_folder(config) / "checkpoints" / "step_00003"
    checkpoint.mkdir(parents=True)
    write_state(checkpoint, RunState(step=3, identity=same))
    write_manifest(checkpoint)
    finished_file(runs.run_folder(config)).write_text("3\n")
    for name in ("policy", "report.html"):
        (runs.run_folder(config) / name).touch()

    def learning_rate(inputs: RunInputs) -> dict[str, float]:
        return {"learning.optimizer.learning_rate": config.learning.optimizer.learning_rate}

    monkeypatch.setattr(RunInputs, "identity", property(learning_rate))
    return Command(config, replay=None, rollout_only=False)


def test_a_finished_run_says_so_and_does_nothing(finished, capsys) -> None:
    runs.run(finished, guard=None, stop=None)
    assert "is finished: it has all 3 steps" in capsys.readouterr().out


def test_a_finished_run_of_other_settings_is_not_taken_for_this_one(finished) -> None:
    finished.config.learning.optimizer.learning_rate = 1e-4
    with pytest.raises(
        OtherRun, match=r"learning.optimizer.learning_rate: 1e-06 in the checkpoint, 0.0001 now"
    ):
        runs.run(finished, guard=None, stop=None)


def test_a_checkpoint_whose_state_cannot_be_read_neither_finishes_nor_refuses_a_run(
    finished,
) -> None:
    folder = runs.run_folder(finished.config) / "checkpoints"
    assert newest_state(finished.config) is not None
    (folder / "step_00003" / "state.json").write_text("{")
    assert newest_state(finished.config) is None
