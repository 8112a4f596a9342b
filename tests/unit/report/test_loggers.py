"""The numbers arrive where the run asks for, and whatever a logger does, training continues."""

import json
import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from megatron_trace.check.loggers import LIBRARIES, check_loggers
from megatron_trace.config import Config, SettingError, check_bounds
from megatron_trace.report import loggers
from megatron_trace.report.logger_backends import BACKENDS, MLflow, RunFacts, WandB
from megatron_trace.report.loggers import DetachedLogger, close_all, start_loggers
from megatron_trace.report.metrics_file import MetricsWriter, read_metrics

Row = tuple[int, dict[str, float]]


class Kept:
    """A logger that keeps what it is given, and fails at the step that is named."""

    def __init__(self, fails_at: int = -1) -> None:
        self.rows: list[Row] = []
        self.closed = False
        self.fails_at = fails_at

    def write(self, step: int, numbers: Any) -> None:
        if step == self.fails_at:
            raise ConnectionError("no\nroute")
        self.rows.append((step, dict(numbers)))

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine at work on other things needs its time for imports."""
    monkeypatch.setattr(loggers, "CLOSE_S", 120.0)


def facts(folder: Path, done: int = 0, **settings: Any) -> RunFacts:
    return RunFacts("trace", folder, settings or {"run.steps": 3}, done)


def test_rows_arrive_in_order_and_the_logger_is_closed(tmp_path: Path) -> None:
    kept = Kept()
    with MetricsWriter(tmp_path, loggers=[DetachedLogger("kept", lambda: kept)]) as writer:
        writer.write({"step": 1, "kl": 0.5, "evaluation": {"1 hop": 0.25}, "events": ["a restart"]})
        writer.write({"step": 2, "kl": 0.25})
    assert kept.rows == [(1, {"kl": 0.5, "evaluation/1 hop": 0.25}), (2, {"kl": 0.25})]
    assert kept.closed


def test_a_logger_that_does_not_start_is_off_with_one_warning(tmp_path: Path) -> None:
    def start() -> Any:
        raise SystemExit("no account")

    with pytest.warns(
        UserWarning, match="here is off, training continues: SystemExit: no account"
    ) as warned:
        writer = MetricsWriter(tmp_path, loggers=[DetachedLogger("here", start)])
        for step in (1, 2):
            writer.write({"step": step, "kl": 1.0})
        writer.close()
    assert len(warned) == 1
    assert len(read_metrics(tmp_path)) == 2


def test_a_logger_that_fails_later_is_off_and_the_others_go_on(tmp_path: Path) -> None:
    broken, whole = Kept(fails_at=2), Kept()
    with pytest.warns(UserWarning, match="broken is off, .*ConnectionError: no route") as warned:
        both = [DetachedLogger("broken", lambda: broken), DetachedLogger("whole", lambda: whole)]
        with MetricsWriter(tmp_path, loggers=both) as writer:
            for step in (1, 2, 3):
                writer.write({"step": step, "kl": 1.0})
    assert len(warned) == 1
    assert [step for step, _ in broken.rows] == [1]
    assert [step for step, _ in whole.rows] == [1, 2, 3]


def test_loggers_that_hang_keep_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "CLOSE_S", 0.2)
    never = threading.Event()
    hanging = [DetachedLogger(name, never.wait) for name in ("one", "two")]  # type: ignore[arg-type]
    begin = time.monotonic()
    with pytest.warns(UserWarning, match="still busy") as warned:
        for logger in hanging:
            logger.write(1, {"kl": 1.0})
        close_all(hanging)
    assert len(warned) == 2
    assert time.monotonic() - begin < 10.0
    never.set()


def test_a_logger_that_falls_too_far_behind_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "MOST_WAITING", 3)
    never = threading.Event()
    logger = DetachedLogger("slow", never.wait)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="slow is off, .*has not taken the last 3 rows"):
        for step in range(5):
            logger.write(step, {"kl": 1.0})
    never.set()


def test_tensorboard_keeps_numbers_and_settings_and_forgets_steps_done_anew(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = Config()
    for done, values in ((0, {1: 0.5, 2: 0.75}), (1, {2: 0.25})):
        opened = start_loggers(config, tmp_path, done=done)
        for step, value in values.items():
            opened[0].write(step, {"kl": value})
        close_all(opened)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("kl")] == [(1, 0.5), (2, 0.25)]
    text = events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| learning.loss.clip_high | 0.28 |" in text


def test_tensorboard_is_off_where_its_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("not a folder")
    with pytest.warns(UserWarning, match="tensorboard is off"):
        close_all(start_loggers(Config(), tmp_path, done=0))


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the library is asked for."""
    asked = SimpleNamespace(inits=[], rows=[], metrics=[], finished=0)

    class FakeRun:
        def define_metric(self, name: str, step_metric: str) -> None:
            asked.metrics.append((name, step_metric))

        def log(self, row: dict[str, float]) -> None:
            asked.rows.append(row)

        def finish(self) -> None:
            asked.finished += 1

    module = ModuleType("wandb")
    module.init = lambda **arguments: asked.inits.append(arguments) or FakeRun()  # type: ignore[attr-defined]
    module.Settings = dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", "/dev/null")
    return asked


def test_a_continued_run_is_the_same_run_at_wandb(wandb: SimpleNamespace, tmp_path: Path) -> None:
    for done in (0, 1):
        logger = WandB(facts(tmp_path, done))
        logger.write(done + 1, {"kl": 0.5})
        logger.close()
    first, second = wandb.inits
    assert first["id"] == second["id"]
    assert (first["resume"], first["name"], first["config"]) == ("allow", "trace", {"run.steps": 3})
    assert wandb.rows == [{"step": 1, "kl": 0.5}, {"step": 2, "kl": 0.5}]
    assert wandb.metrics[0] == ("*", "step")
    assert wandb.finished == 2


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": "secret"}, None),
        ({"WANDB_MODE": "disabled"}, "disabled"),
        ({"WANDB_MODE": "online"}, "online"),
    ],
)
def test_wandb_never_asks_at_the_terminal(
    environment: dict[str, str],
    mode: str | None,
    wandb: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    WandB(facts(tmp_path))
    assert wandb.inits[0]["mode"] == mode
    assert wandb.inits[0]["project"] == "megatron-trace"


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the library is asked for."""
    asked = SimpleNamespace(uris=[], runs=[], experiments={}, batches=[], statuses=[])

    class FakeClient:
        def __init__(self, tracking_uri: str) -> None:
            asked.uris.append(tracking_uri)

        def get_experiment_by_name(self, name: str) -> Any:
            number = asked.experiments.get(name)
            return number and SimpleNamespace(experiment_id=number)

        def create_experiment(self, name: str) -> str:
            return asked.experiments.setdefault(name, str(len(asked.experiments) + 1))

        def create_run(self, experiment: str, run_name: str) -> Any:
            asked.runs.append((experiment, run_name))
            return SimpleNamespace(info=SimpleNamespace(run_id=f"run-{len(asked.runs)}"))

        def log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
            asked.batches.append((run, list(metrics), list(params)))

        def update_run(self, run: str, status: str) -> None:
            asked.statuses.append((run, status))

        def set_terminated(self, run: str) -> None:
            asked.statuses.append((run, "FINISHED"))

    entities, tracking = ModuleType("mlflow.entities"), ModuleType("mlflow.tracking")
    entities.Metric = lambda *values: values  # type: ignore[attr-defined]
    entities.Param = lambda *values: values  # type: ignore[attr-defined]
    tracking.MlflowClient = FakeClient  # type: ignore[attr-defined]
    for module in (ModuleType("mlflow"), entities, tracking):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return asked


def test_a_continued_run_is_the_same_run_at_mlflow(mlflow: SimpleNamespace, tmp_path: Path) -> None:
    folder = tmp_path / "trace"
    folder.mkdir()
    settings = {f"a.{number}": number for number in range(150)}
    for done in (0, 1):
        logger = MLflow(facts(folder, done, **settings))
        logger.write(done + 1, {"kl": 0.5, "gap": float("nan")})
        logger.close()
    assert mlflow.runs == [("1", "trace")]
    assert mlflow.uris == [f"sqlite:///{tmp_path}/mlflow.db"] * 2
    assert [len(params) for _, _, params in mlflow.batches if params] == [100, 50]
    written = [metric[:2] + metric[3:] for _, metrics, _ in mlflow.batches for metric in metrics]
    assert written == [("kl", 0.5, 1), ("kl", 0.5, 2)]
    assert {run for run, *_ in mlflow.batches} == {"run-1"}
    assert [status for _, status in mlflow.statuses] == ["RUNNING", "FINISHED"] * 2


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_the_real_library_takes_a_run_and_its_continuation(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config, folder = Config(), tmp_path / "trace"
    folder.mkdir()
    config.run.loggers = [name]
    for done in (0, 1):
        with MetricsWriter(
            folder, done=done, loggers=start_loggers(config, folder, done=done)
        ) as writer:
            writer.write({"step": done + 1, "kl": 0.5, "time/learning": 1.0})
    if name == "wandb":
        assert (
            len({path.name.split("-")[-1] for path in (folder / "wandb").glob("offline-run-*")})
            == 1
        )
    else:
        client = sys.modules["mlflow.tracking"].MlflowClient(
            tracking_uri=f"sqlite:///{tmp_path}/mlflow.db"
        )
        run = client.get_run((folder / "mlflow_run").read_text())
        assert [metric.step for metric in client.get_metric_history(run.info.run_id, "kl")] == [
            1,
            2,
        ]
        assert run.data.params["learning.loss.clip_high"] == "0.28"
        assert run.info.status == "FINISHED"


def test_unknown_and_missing_loggers_are_refused_at_the_door(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = Config()
    check_bounds(config)
    check_loggers(config)
    config.run.loggers = ["tensorbord"]
    with pytest.raises(
        SettingError, match=r"run.loggers = 'tensorbord': must be one of tensorboard, wandb, mlflow"
    ):
        check_bounds(config)
    monkeypatch.setitem(LIBRARIES, "wandb", "no_such_library")
    config.run.loggers = ["tensorboard", "wandb"]
    with pytest.raises(SettingError, match=r"run.loggers = 'wandb': is not installed: pip install"):
        check_loggers(config)


def test_every_logger_has_its_library_named() -> None:
    assert LIBRARIES.keys() == BACKENDS.keys()


def test_settings_that_loggers_are_told_are_plain_values(tmp_path: Path) -> None:
    config = Config()
    config.run.loggers = []
    assert start_loggers(config, tmp_path, done=0) == []
    seen: list[RunFacts] = []
    BACKENDS["kept"] = lambda facts: seen.append(facts) or Kept()
    try:
        config.run.loggers = ["kept", "kept"]
        close_all(start_loggers(config, tmp_path, done=0))
    finally:
        del BACKENDS["kept"]
    assert len(seen) == 1
    assert seen[0].settings["precision.train"] == "bf16"
    json.dumps(dict(seen[0].settings))
