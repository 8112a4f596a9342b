"""The predictor: a small head on the policy's final hidden state that gives a history's success probability."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

FILE = "predictor.safetensors"
NAMES = ("predictor.fc1.weight", "predictor.fc1.bias", "predictor.fc2.weight", "predictor.fc2.bias")


class PredictorHead(nn.Module):
    """logit = W₂·gelu_tanh(W₁h + b₁) + b₂ in float32; the success probability is σ(logit).

    h is the input of the output layer (after the final layernorm), detached, so the policy gets no gradient.
    The sampler computes the same from tensors of the same names; a change here is a change there.
    """

    def __init__(self, hidden: int, width: int, seed: int) -> None:
        """A new head of `width` hidden units, the same for the same seed; it predicts 0.5 everywhere."""
        super().__init__()
        self.fc1 = nn.Linear(hidden, width)
        self.fc2 = nn.Linear(width, 1)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.fc1.weight.copy_(torch.randn(width, hidden, generator=generator) / hidden**0.5)
            for parameter in (self.fc1.bias, self.fc2.weight, self.fc2.bias):
                parameter.zero_()

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits [m] of the hidden states [m, hidden]."""
        inner = nn.functional.gelu(self.fc1(hidden.detach().float()), approximate="tanh")
        return self.fc2(inner).squeeze(-1)


def load_predictor(head: PredictorHead, folder: Path) -> bool:
    """Read the head's tensors from the HF folder. Returns False, changing nothing, if it holds none.

    Raises:
        ValueError: a tensor is missing or has another shape than `learning.predictor_hidden` asks for.
    """
    if not (folder / FILE).exists():
        return False
    stored = load_file(folder / FILE)
    own = {f"predictor.{name}": parameter for name, parameter in head.named_parameters()}
    for name in sorted(own.keys() | stored.keys()):
        found = tuple(stored[name].shape) if name in stored else "absent"
        wanted = tuple(own[name].shape) if name in own else "no such tensor"
        if found != wanted:
            raise ValueError(
                f"{folder / FILE}: {name} is {found} but the run needs {wanted}; "
                "set learning.predictor_hidden to the stored width or remove the file"
            )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(stored[name])
    return True
