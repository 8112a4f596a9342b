"""Time and memory of the two conversions against `transformers` loading and saving the same files,
side by side.

    python tools/bench_convert.py

Makes a random model in the shape of Qwen3-0.6B (bfloat16, 1.2 GB) in a temporary folder. Runs each
command in its own process, in turns of rotating order.

seconds: wall time from the start of the process to its end, imports included. processor s:
processor time, which other work on the machine disturbs less. peak MB: the largest resident size of
the process as the kernel saw it (`ru_maxrss`: its own pages and those of the
    files that it maps).
ratio: over transformers.
imports: an interpreter that only imports the same modules.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

TOOLS = Path(__file__).parent
QWEN3_06B = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 151643,
    "dtype": "bfloat16",
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000,
    "tie_word_embeddings": True,
    "vocab_size": 151936,
}

MAKE = """
import sys, torch
from pathlib import Path
from megatron_trace.policy.hf import read_config
from megatron_trace.policy.hf_writer import write_folder
from megatron_trace.policy.convert.locations import hf_shape
from megatron_trace.models.weight_map import expand, family_of
source, out = map(Path, sys.argv[1:])
config = read_config(source)
names = [name for row in expand(family_of("qwen3"), config, tied=True) for name in row.hf]
metas = [(name, torch.bfloat16, hf_shape(name, config)) for name in names]
write_folder(out, source, ((name, torch.randn(shape) / 50) for name, _, shape in metas), metas, {})
"""
TRANSFORMERS = """
import sys
from transformers import AutoModelForCausalLM
AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto").save_pretrained(sys.argv[2])
"""
IMPORT_OURS = "import megatron_trace.policy.convert.to_hf, megatron_trace.policy.convert.to_megatron, rich.progress"
IMPORT_TRANSFORMERS = "from transformers import AutoModelForCausalLM, Qwen3ForCausalLM"


@dataclass
class Runs:
    """The repetitions of one command: wall and processor seconds and peak resident bytes of each."""

    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)

    @property
    def time(self) -> float:
        """Median seconds."""
        return statistics.median(self.seconds)

    @property
    def memory(self) -> float:
        """Median peak in bytes."""
        return statistics.median(self.peaks)


def run(*command: str | Path) -> tuple[float, float, int]:
    """Run Python with these arguments; returns wall and processor seconds and its peak resident
    memory in bytes.
    """
    # Otherwise this command would wait for what the previous one has not written to the disk yet.
    os.sync()
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(errors.decode())
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def measure(folder: Path, repeats: int) -> dict[str, Runs]:
    """Runs every command `repeats` times, in turn, after a turn that is not counted."""
    hf, checkpoint, out = folder / "hf", folder / "checkpoint", folder / "out"
    commands: dict[str, tuple[str | Path, ...]] = {
        "transformers": ("-c", TRANSFORMERS, hf, out),
        "to Megatron": (TOOLS / "convert_hf_to_megatron.py", "--hf", hf, "--out", out),
        "to HF": (TOOLS / "convert_megatron_to_hf.py", "--checkpoint", checkpoint, "--out", out),
        "imports of transformers": ("-c", IMPORT_TRANSFORMERS),
        "imports of ours": ("-c", IMPORT_OURS),
    }
    run(TOOLS / "convert_hf_to_megatron.py", "--hf", hf, "--out", checkpoint)
    runs = {name: Runs() for name in commands}
    for turn in range(repeats + 1):
        names = list(commands)
        # Each command comes first equally often: whoever is first finds a colder page cache.
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            seconds, processor, peak = run(*commands[name])
            shutil.rmtree(out, ignore_errors=True)
            if turn:
                runs[name].seconds.append(seconds)
                runs[name].processor.append(processor)
                runs[name].peaks.append(peak)
    return runs


def table_of(runs: dict[str, Runs]) -> Table:
    """The measurements, and the conversions' ratios to transformers."""
    table = Table(
        "", "seconds (range)", "ratio", "processor s", "ratio", "peak MB", "ratio", box=None
    )
    base = runs["transformers"]
    for name, one in runs.items():
        spent, basis = statistics.median(one.processor), statistics.median(base.processor)
        table.add_row(
            name,
            f"{one.time:.2f} ({min(one.seconds):.2f} to {max(one.seconds):.2f})",
            f"{one.time / base.time:.2f}",
            f"{spent:.2f}",
            f"{spent / basis:.2f}",
            f"{one.memory / 1e6:.0f}",
            f"{one.memory / base.memory:.2f}",
        )
    return table


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repeats", type=int, default=5, help="repetitions, after one that is not counted"
    )
    parser.add_argument("--layers", type=int, default=28, help="layers of the model")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made (5 GB)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        (folder / "config").mkdir()
        config = QWEN3_06B | {"num_hidden_layers": args.layers}
        (folder / "config" / "config.json").write_text(json.dumps(config), encoding="utf-8")
        run("-c", MAKE, folder / "config", folder / "hf")
        Console().print(table_of(measure(folder, args.repeats)))


if __name__ == "__main__":
    main()
