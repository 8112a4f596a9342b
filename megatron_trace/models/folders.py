"""A policy's folder: a Hugging Face folder, or a checkpoint, which contains one without weights.

Imports without torch.
"""

from pathlib import Path

HF = "hf"
"""Configuration, tokenizer and chat template within a checkpoint."""


def is_checkpoint(folder: Path) -> bool:
    """Whether `folder` is a checkpoint of a run or of tools/convert_hf_to_megatron.py."""
    return (folder / HF / "config.json").exists() and not (folder / "config.json").exists()


def hf_assets_dir(folder: Path) -> Path:
    """The folder that holds config.json, tokenizer and chat template of the policy at `folder`."""
    return folder / HF if is_checkpoint(folder) else folder


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights of the policy at `folder`, predictor included, sorted."""
    return sorted([*folder.glob("*.safetensors"), *folder.glob("*.distcp")])


def text_files(folder: Path) -> list[Path]:
    """The files that turn a chat into token ids: tokenizer and chat template, sorted."""
    assets = hf_assets_dir(folder)
    patterns = ("tokenizer*", "chat_template*", "vocab*", "merges.txt", "*_tokens*.json")
    return sorted({path for pattern in patterns for path in assets.glob(pattern) if path.is_file()})
