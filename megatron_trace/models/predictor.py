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

NAMES = ("predictor.weight", "predictor.bias")
"""The head's tensors, in `FILE` and among the weights that the sampler receives."""


def shapes(hidden: int) -> dict[str, tuple[int, ...]]:
    """Tensor -> shape of a head on hidden states of size `hidden`."""
    return dict(zip(NAMES, ((1, hidden), (1,)), strict=True))


class PredictorHead(nn.Linear):
    """logit = w·h + b; the success probability is σ(logit).

    h is the input of the output layer, after the final layernorm. The weights are float32 whatever
    the policy's dtype.
    """

    def __init__(self, hidden: int) -> None:
        """A head on hidden states of size `hidden` that predicts 0.5 everywhere."""
        # vLLM builds its models under the policy's dtype as torch's default.
        super().__init__(hidden, 1, dtype=torch.float32)
        with torch.no_grad():
            self.weight.zero_()
            self.bias.zero_()

    def forward(self, hidden: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Logits, float32 [m], of the hidden states [m, hidden], computed in `dtype`.

        The hidden states are detached: the policy gets no gradient.
        """
        weight, bias = self.weight.to(dtype), self.bias.to(dtype)
        return nn.functional.linear(hidden.detach().to(dtype), weight, bias).squeeze(-1).float()


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
        ValueError: a tensor is missing, or has another shape than the policy's hidden states need.
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
                f"{folder / FILE}: {name} is {found} but the policy needs {wanted}; "
                "fit the predictor again with tools/fit_predictor.py, or remove the file"
            )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(stored[name])
    return True
