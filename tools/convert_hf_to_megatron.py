"""Make a Megatron distributed checkpoint from a Hugging Face folder; it loads in any parallel
layout.

    python tools/convert_hf_to_megatron.py --hf models/Qwen3-0.6B --out checkpoints/start

Reads and writes tensor by tensor. What a checkpoint holds: docs/conversion.md
"""

import argparse
import ctypes
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from megatron_trace.policy.convert.model import Converted, OnProgress
from megatron_trace.policy.convert.to_megatron import to_megatron

M_ARENA_MAX = -8
"""Number of an option in glibc's malloc.h."""


def share_freed_memory() -> None:
    """Let threads take the memory blocks that other threads have freed; by default glibc keeps them
    apart.
    """
    # Another C library has no mallopt.
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def run(tool: str, out: Path, conversion: Callable[[OnProgress], Converted]) -> None:
    """Convert with a progress bar and print a line with the result; on an error print it and exit
    with 2.

    Args:
        tool: the tool's name, for messages.
        out: the folder to make.
        conversion: does the work; it calls its argument with the finished and the total number of
            parts.
    """
    begin = time.perf_counter()
    share_freed_memory()
    # Copying is no work for several threads: they would only spin.
    torch.set_num_threads(1)
    try:
        # A link that leads nowhere exists as well.
        if os.path.lexists(out):
            raise ValueError(f"--out {out} exists; it is not overwritten, choose another name")
        columns = (
            TextColumn("converting"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=None)
            done = conversion(lambda parts, total: bar.update(task, completed=parts, total=total))
    except (ValueError, OSError) as error:
        print(f"{tool}: {error}", file=sys.stderr)
        sys.exit(2)
    seconds = time.perf_counter() - begin
    print(
        f"{out}: {done.tensors} tensors, {done.size / 1e6:,.1f} MB in {seconds:.1f} s"
        + (f" ({done.remark})" if done.remark else "")
    )


def main() -> None:
    """Parse the command line and convert."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--hf",
        type=Path,
        required=True,
        help="Hugging Face folder: Qwen3, Qwen3-MoE, Qwen2, Llama 3",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="checkpoint to make; appears when it is complete"
    )
    args = parser.parse_args()
    run(parser.prog, args.out, lambda progress: to_megatron(args.hf, args.out, progress))


if __name__ == "__main__":
    main()
