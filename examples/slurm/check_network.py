"""Whether an all-reduce over all ranks of torchrun works, and how fast: with NCCL, or with gloo
where there is no GPU.

Environment: NETWORK_GB_S, the slowest acceptable bus bandwidth in GB/s; below it the exit code is
1.
"""

import os
import sys
import time
from datetime import timedelta

import torch
import torch.distributed as dist

MIB = 256
"""Size of the tensor on GPUs. Without GPUs it is a hundredth of that."""

REPEATS = 10


def main() -> int:
    """Measure; returns the exit code."""
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpu else "gloo", timeout=timedelta(seconds=60))
    rank, world = dist.get_rank(), dist.get_world_size()
    size = (MIB << 20) // (1 if gpu else 100)
    tensor = torch.ones(size // 4, device=device)
    # The first all-reduce connects the ranks, which takes longer than all that follow.
    dist.all_reduce(tensor)
    right = bool((tensor == world).all())
    begin = time.perf_counter()
    for _ in range(REPEATS):
        dist.all_reduce(tensor)
    if gpu:
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - begin) / REPEATS
    # Bus bandwidth as nccl-tests defines it: what each rank sends, whatever the number of ranks.
    sent = 2 * (world - 1) / world * size
    speed = sent / seconds / 1e9
    dist.destroy_process_group()
    if rank == 0:
        print(f"all-reduce over {world} ranks: {speed:.2f} GB/s", flush=True)
    if not right:
        print(f"error: rank {rank} received a wrong sum", file=sys.stderr)
    return 0 if right and speed >= float(os.environ.get("NETWORK_GB_S", "0")) else 1


if __name__ == "__main__":
    sys.exit(main())
