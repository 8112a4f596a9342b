"""What the makers state of their accelerators. Rates are dense peaks; `assumptions` says what share
is reached.
"""

import os
from dataclasses import dataclass, replace

MIB = 1024**2
GIB = 1024**3


@dataclass(frozen=True)
class Gpu:
    """One accelerator.

    Attributes:
        memory: bytes that a program can use, as `nvidia-smi` shows them.
        flops: peak FLOP/s of 16-bit matrix products (32-bit ones for "cpu").
        fp8_flops: peak FLOP/s of FP8 matrix products; 0 where there is no FP8.
        bandwidth: bytes/s of its memory.
        link: bytes/s to the other GPUs of its node, in one direction.
        network: bytes/s of its share of the node's network, in one direction.
        capability: CUDA compute capability.
    """

    name: str
    memory: int
    flops: float
    fp8_flops: float
    bandwidth: float
    link: float
    network: float
    capability: tuple[int, int]


def _cpu() -> Gpu:
    """This machine, with the rates of two cores. They are rough: they let a laptop's run be planned
    at all.
    """
    # The memory is this machine's own, since it decides whether a run fits.
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Gpu(
        name="cpu",
        memory=memory,
        flops=1e11,
        fp8_flops=0.0,
        bandwidth=2e10,
        link=5e9,
        network=1e9,
        capability=(0, 0),
    )


BOARDS = (
    Gpu(
        name="a100-80gb",
        memory=81920 * MIB,
        flops=312e12,
        fp8_flops=0.0,
        bandwidth=2.04e12,
        link=300e9,
        network=25e9,
        capability=(8, 0),
    ),
    Gpu(
        name="h100-80gb",
        memory=81559 * MIB,
        flops=989e12,
        fp8_flops=1979e12,
        bandwidth=3.35e12,
        link=450e9,
        network=50e9,
        capability=(9, 0),
    ),
    Gpu(
        name="h200-141gb",
        memory=143771 * MIB,
        flops=989e12,
        fp8_flops=1979e12,
        bandwidth=4.8e12,
        link=450e9,
        network=50e9,
        capability=(9, 0),
    ),
    Gpu(
        name="b200-180gb",
        memory=183359 * MIB,
        flops=2250e12,
        fp8_flops=4500e12,
        bandwidth=7.7e12,
        link=900e9,
        network=50e9,
        capability=(10, 0),
    ),
)
"""SXM boards: NVLink within a node, one 400 Gb/s InfiniBand port for each GPU (200 Gb/s for A100).
"""

GPUS: dict[str, Gpu] = {gpu.name: gpu for gpu in (*BOARDS, _cpu())}


def cpu_share(processes: int) -> Gpu:
    """This machine as each of `processes` train ranks and engines sees it: they share its memory
    evenly.
    """
    return replace(GPUS["cpu"], memory=GPUS["cpu"].memory // processes)


@dataclass(frozen=True)
class Cluster:
    """Equal nodes of equal GPUs. The train ranks take the first GPUs, the fleet's engines the rest."""

    nodes: int
    gpus_per_node: int
    gpu: Gpu

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return self.nodes * self.gpus_per_node

    def speed_between(self, ranks: int) -> float:
        """Bytes/s of one GPU within a group of `ranks` neighbours: NVLink within a node, else the
        network.
        """
        return self.gpu.link if ranks <= self.gpus_per_node else self.gpu.network
