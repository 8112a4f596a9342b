"""The predictor: a head on the policy's final hidden state that gives a history's success
probability.

One class for both sides: the trainer teaches it, and the sampler computes it beside the policy.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

FILE = "predictor.safetensors"
"""The head's file in an HF folder."""

NAMES = ("predictor.fc1.weight", "predictor.fc1.bias", "predictor.fc2.weight", "predictor.fc2.bias")
"""The head's tensors, in `FILE` and among the weights that the sampler receives."""


def shapes(hidden: int, width: int) -> dict[str, tuple[int, ...]]:
    """Tensor -> shape of a head of `width` hidden units on hidden states of size `hidden`."""
    return dict(zip(NAMES, ((width, hidden), (width,), (1, width), (1,)), strict=True))


class PredictorHead(nn.Module):
    """logit = W₂·gelu_tanh(W₁h + b₁) + b₂; the success probability is σ(logit).

    h is the input of the output layer, after the final layernorm. The weights are float32 whatever
    the policy's dtype.
    """

    def __init__(self, hidden: int, width: int, seed: int | None = None) -> None:
        """A head of `width` hidden units that predicts 0.5 everywhere.

        Args:
            hidden: size of the policy's hidden states.
            width: hidden units.
            seed: of the first layer's weights; None leaves them 0, for a head that is only loaded.
        """
        super().__init__()
        # vLLM builds its models under the policy's dtype as torch's default.
        self.fc1 = nn.Linear(hidden, width, dtype=torch.float32)
        self.fc2 = nn.Linear(width, 1, dtype=torch.float32)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            if seed is not None:
                generator = torch.Generator().manual_seed(seed)
                noise = torch.randn(width, hidden, generator=generator)
                self.fc1.weight.copy_(noise / hidden**0.5)

    def forward(self, hidden: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Logits, float32 [m], of the hidden states [m, hidden], computed in `dtype`.

        The hidden states are detached: the policy gets no gradient.
        """
        w1, b1, w2, b2 = (parameter.to(dtype) for parameter in self.parameters())
        inner = nn.functional.linear(hidden.detach().to(dtype), w1, b1)
        inner = nn.functional.gelu(inner, approximate="tanh")
        return nn.functional.linear(inner, w2, b2).squeeze(-1).float()


def sampling_dtype(device: torch.device) -> torch.dtype:
    """In which dtype the sampler computes the head: float64 on a CPU, else float32 as the trainer.

    On a CPU the order of a float32 sum depends on what else is in the batch. So would the
    prediction, and the allocation that it steers: two runs of one seed would differ. Rounded to
    float32 after a sum in float64, the difference does not show. The trainer's loss needs no such
    care, as its batches are the same in both runs.
    """
    return torch.float64 if device.type == "cpu" else torch.float32


def load_predictor(head: PredictorHead, folder: Path) -> bool:
    """Read the head's tensors from the HF folder.

    Returns:
        False, with nothing changed, if the folder has no such file.

    Raises:
        ValueError: a tensor is missing or has another shape than `learning.predictor.hidden` gives.
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
                "set learning.predictor.hidden to the stored width or remove the file"
            )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(stored[name])
    return True
