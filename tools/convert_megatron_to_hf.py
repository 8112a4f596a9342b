"""Make a Hugging Face folder from a checkpoint of a run or of convert_hf_to_megatron.py, in any
parallel layout.

    python tools/convert_megatron_to_hf.py --checkpoint runs/geo_hop/checkpoints/step_000100 --out models/trained

Reads and writes tensor by tensor. Configuration, tokenizer, chat template and predictor travel
along.
"""

import argparse
import re
from pathlib import Path

import torch
from convert_hf_to_megatron import run

from megatron_trace.policy.convert.to_hf import to_hf

UNITS = {"": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}


def parse_size(text: str) -> int:
    """Bytes of a size such as "5GB" or "500MB", in units of 1000 as in transformers.

    Raises:
        ValueError: `text` is no such size.
    """
    # As in transformers' save_pretrained, so that the same words mean the same size.
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B?)", text.strip(), re.IGNORECASE)
    unit = match[2].upper() if match else None
    if match is None or unit not in UNITS or not (size := int(float(match[1]) * UNITS[unit])):
        raise ValueError(f"{text!r} is not a size such as 5GB or 500MB")
    return size


def main() -> None:
    """Parse the command line and convert."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="folder that holds manifest.json"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="HF folder to make; appears when it is complete"
    )
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        help="cast the model; by default it stays as it is",
    )
    parser.add_argument(
        "--max-shard-size", default="5GB", help="of a file of weights (default: 5GB)"
    )
    args = parser.parse_args()
    try:
        limit = parse_size(args.max_shard_size)
    except ValueError as error:
        parser.error(f"--max-shard-size: {error}")
    # Without --dtype every tensor keeps the checkpoint's own.
    dtype = getattr(torch, args.dtype) if args.dtype else None
    run(
        parser.prog,
        args.out,
        lambda progress: to_hf(
            args.checkpoint, args.out, progress, dtype=dtype, max_shard_bytes=limit
        ),
    )


if __name__ == "__main__":
    main()
