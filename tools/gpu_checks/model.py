"""Random models of a given shape, made on the spot: nothing is downloaded."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3Config, Qwen3ForCausalLM

from gpu_checks.tokenizer import make_tokenizer
from megatron_trace.models.predictor import FILE, NAMES

LONGEST = 4096
"""Most tokens of a history."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a Qwen3."""

    vocabulary: int
    hidden: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    head_width: int


NUMBERS = {
    "cuda": Shape(8192, 768, 2304, layers=12, heads=12, key_heads=4, head_width=64),
    "cpu": Shape(512, 128, 256, layers=2, heads=4, key_heads=2, head_width=32),
}
"""For comparing numbers: 89 million parameters, which a CPU trains in seconds; less on a CPU alone."""

SPEED = {
    "cuda": Shape(32768, 4096, 12288, layers=4, heads=32, key_heads=8, head_width=128),
    "cpu": NUMBERS["cpu"],
}
"""For rates: four layers of Qwen3-8B's, 19 GiB with their optimizer state."""


def make_model(
    folder: Path, shape: Shape, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Path:
    """A HF folder with random weights, predictor and tokenizer.

    Norms and predictor are random as well: a wrong one would otherwise be hard to see.
    """
    if folder.exists():
        return folder
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    config = Qwen3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        head_dim=shape.head_width,
        max_position_embeddings=LONGEST,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = Qwen3ForCausalLM(config).to(dtype)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data += 0.3 * torch.randn_like(parameter)
    part = folder.with_name(f"{folder.name}.part")
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    save_file(_predictor(shape.hidden), part / FILE)
    part.rename(folder)
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a HF folder."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def _predictor(hidden: int) -> dict[str, torch.Tensor]:
    """A head whose predictions differ from history to history."""
    weight = hidden**-0.5 * torch.randn(1, hidden)
    return dict(zip(NAMES, (weight, 0.1 * torch.randn(1)), strict=True))
