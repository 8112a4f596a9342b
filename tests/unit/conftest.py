"""What a module's tests did to torch is undone after them."""

from collections.abc import Iterator

import pytest
import torch

from megatron_trace.policy.cpu_adapter import FACTORIES

CUDA = (
    *(
        "current_device",
        "synchronize",
        "set_device",
        "manual_seed",
        "get_rng_state",
        "set_rng_state",
    ),
    *("Stream", "current_stream", "stream"),
)
PATCHED = (
    (torch, (*FACTORIES, "_trace_cpu_adapter")),
    (torch.Tensor, ("to", "type", "cuda")),
    (torch.nn.Module, ("cuda",)),
    (torch.cuda, CUDA),
)


@pytest.fixture(scope="module", autouse=True)
def torch_without_the_cpu_adapter() -> Iterator[None]:
    """A test that builds a policy, or a plan of one, in this process installs the adapter for it."""
    before = [(owner, name, vars(owner).get(name)) for owner, names in PATCHED for name in names]
    yield
    for owner, name, value in before:
        if value is not None:
            setattr(owner, name, value)
        elif name in vars(owner):
            delattr(owner, name)
