"""Whether a run's start policy is there, and not only its description."""

from pathlib import Path

from megatron_trace.config import Config, SettingError
from megatron_trace.models.folders import is_checkpoint


def check_weights(config: Config) -> None:
    """Refuse a folder that holds a config.json and no weights: enough for a plan, not for a run.

    Raises:
        SettingError: there are none; it names the command that fetches them.
    """
    folder = Path(config.model.path)
    if is_checkpoint(folder) or any(folder.glob("*.safetensors")):
        return
    known = folder.name if folder.name.startswith("Qwen3-") else None
    source = f"Qwen/{known}" if known else "<organisation>/<model>"
    remedy = (
        f"holds no weights (*.safetensors); fetch them: hf download {source} --local-dir {folder}"
    )
    raise SettingError("model.path", config.model.path, remedy)
