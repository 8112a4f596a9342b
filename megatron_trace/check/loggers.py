"""Whether the libraries of the loggers are installed."""

import importlib.util

from megatron_trace.config import Config, SettingError

LIBRARIES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
"""`run.loggers` -> the library that it needs."""


def check_loggers(config: Config) -> None:
    """Refuse a logger whose library this machine does not have.

    Raises:
        SettingError: there is one.
    """
    for name in config.run.loggers:
        if importlib.util.find_spec(LIBRARIES[name]) is None:
            remedy = f"is not installed: pip install {LIBRARIES[name]}, or leave it out"
            raise SettingError("run.loggers", name, remedy)
