"""An all-reduce over all ranks of torchrun, by NCCL, or by gloo where there is no GPU: it works, and how fast.

Environment: NETWORK_GB_S, slowest acceptable bus bandwidth in GB/s. Exits with 1 below it.
"""

import os
import sys
import time
from datetime import timedelta

import torch
import torch.distributed as dist

MIB = 256
"""Size of the tensor on GPUs; a hundredth of it without."""

REPEATS = 10


def main() -> int:
    """Measure; returns the exit code."""
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpu else "gloo", timeout=timedelta(seconds=60))
    rank, world = dist.get_rank(), dist.get_world_size()
    bytes_ = (MIB << 20) // (1 if gpu else 100)
    tensor = torch.ones(bytes_ // 4, device=device)
    dist.all_reduce(tensor)  # connects
    right = bool((tensor == world).all())
    begin = time.perf_counter()
    for _ in range(REPEATS):
        dist.all_reduce(tensor)
    if gpu:
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - begin) / REPEATS
    speed = 2 * (world - 1) / world * bytes_ / seconds / 1e9  # each rank sends and receives so much
    dist.destroy_process_group()
    if rank == 0:
        print(f"all-reduce over {world} ranks: {speed:.2f} GB/s", flush=True)
    if not right:
        print(f"error: rank {rank} received a wrong sum", file=sys.stderr)
    return 0 if right and speed >= float(os.environ.get("NETWORK_GB_S", "0")) else 1


if __name__ == "__main__":
    sys.exit(main())
