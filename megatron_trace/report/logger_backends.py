"""TensorBoard, Weights & Biases and MLflow behind one protocol of two methods; adding one is a
class and a row.

Each imports its library only when it is opened. Their own environment variables hold
(docs/logging.md).
"""

import math
import os
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from megatron_trace.files.atomic import write_text

PROJECT = "megatron-trace"
"""Project at W&B and experiment at MLflow where the environment names none."""


class Logger(Protocol):
    """One place for a run's numbers. Its methods may raise: it is then switched off."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Keep the numbers of one row; a step may have several, and is repeated after a crash."""

    def close(self) -> None:
        """Finish: everything written is kept."""


@dataclass(frozen=True)
class RunFacts:
    """What a logger is told of the run.

    Attributes:
        name: of the run.
        folder: of its results.
        settings: dotted name -> value of every setting.
        done: steps finished before; above 0 the run is continued.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]
    done: int


class TensorBoard:
    """Event files in the run's folder, `tensorboard/`."""

    def __init__(self, run: RunFacts) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.done + 1)
        if not run.done:
            lines = [f"| {name} | {value} |" for name, value in run.settings.items()]
            self._writer.add_text(
                "settings", "\n".join(["| setting | value |", "| --- | --- |", *lines])
            )

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A run at Weights & Biases; in `wandb/` of the run's folder, for `wandb sync`, where no
    account is set up.
    """

    def __init__(self, run: RunFacts) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=_remembered(run.folder / "wandb_run", lambda: uuid.uuid4().hex[:12]),
            resume="allow",
            name=run.name,
            dir=str(run.folder),
            config=dict(run.settings),
            mode=_wandb_mode(),
            settings=wandb.Settings(
                silent=True, console="off", finish_timeout=5.0, init_timeout=20.0
            ),
        )
        # W&B's own count of steps only grows: it would refuse an evaluation beside its step, and a
        # repeated step.
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log({"step": step, **numbers})

    def close(self) -> None:
        self._run.finish()


def _wandb_mode() -> Any:
    """Without a key W&B would ask for one at the terminal and wait: the run is then kept offline."""
    if "WANDB_MODE" in os.environ:
        return os.environ["WANDB_MODE"]
    from requests.utils import get_netrc_auth

    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    return None if os.environ.get("WANDB_API_KEY") or get_netrc_auth(server) else "offline"


class MLflow:
    """A run at `MLFLOW_TRACKING_URI`; in `mlflow.db` beside the runs' folders where that is not
    set.
    """

    def __init__(self, run: RunFacts) -> None:
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        here = f"sqlite:///{run.folder.parent.resolve() / 'mlflow.db'}"
        self._client = MlflowClient(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI", here))
        file = run.folder / "mlflow_run"
        known = file.exists()
        self._id = _remembered(file, lambda: self._create(run.name))
        # MLflow refuses to change a setting that was logged, and more than 100 of them at once.
        if not known:
            params = [Param(name, str(value)[:500]) for name, value in run.settings.items()]
            for first in range(0, len(params), 100):
                self._client.log_batch(self._id, params=params[first : first + 100])
        self._client.update_run(self._id, status="RUNNING")

    def _create(self, name: str) -> str:
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(title)
        experiment = found.experiment_id if found else self._client.create_experiment(title)
        return self._client.create_run(experiment, run_name=name).info.run_id

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        finite = [(name, value) for name, value in numbers.items() if math.isfinite(value)]
        self._client.log_batch(
            self._id, metrics=[Metric(name, value, now, step) for name, value in finite]
        )

    def close(self) -> None:
        self._client.set_terminated(self._id)


BACKENDS: dict[str, Callable[[RunFacts], Logger]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}
"""`run.loggers` -> what opens it."""


def _remembered(file: Path, make: Callable[[], str]) -> str:
    """The id in `file`, by which a continued run finds its own; made and written there the first
    time.
    """
    if not file.exists():
        write_text(file, make())
    return file.read_text().strip()
