"""The numbers to compare with: the policy in float32 on the CPU, where tests hold it to
`transformers`.

    python -m gpu_checks.cpu_numbers (cuda|cpu) WORK

Runs in a process that sees no GPU. Makes the model of all comparisons as well.
"""

import os
import pickle
import subprocess
import sys
from pathlib import Path

from gpu_checks.check import Context, Skip, Wrong, require
from gpu_checks.model import NUMBERS, make_model
from gpu_checks.training import MICRO_BATCH_TOKENS, Numbers, settings, some_rows, train

TOLERANCE = 1e-3
"""Relative, of float32 sums over all parameters and tokens."""


def numbers_on_the_cpu(context: Context) -> str:
    """The CPU's gradient norm and entropy are those of plain PyTorch with `transformers`."""
    numbers = reference(context).updates[0]
    return (
        f"gradient norm {numbers['gradient_norm']:.4f} and entropy {numbers['entropy']:.4f}, as "
        "in plain PyTorch with transformers"
    )


def model_of(context: Context) -> Path:
    """Folder of the model that numbers are compared with."""
    return context.work / "model"


def end_of(context: Context) -> Path:
    """Folder of the policy that the CPU has trained."""
    return context.work / "cpu_end"


def reference(context: Context) -> Numbers:
    """The CPU's numbers, computed when they are first asked for.

    Raises:
        Wrong: they are not those of plain PyTorch.
        Skip: they were not when they were first asked for.
    """
    file, failure = (context.work / f"cpu_numbers.{end}" for end in ("pickle", "failed"))
    if failure.exists():
        raise Skip("needs the numbers on the CPU, which have failed")
    if not file.exists():
        command = [sys.executable, "-m", __name__, context.device, str(context.work)]
        failure.write_text("its process has ended")
        done = subprocess.run(command, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, check=False)
        if done.returncode:
            raise Wrong(failure.read_text())
        failure.unlink()
    return pickle.loads(file.read_bytes())


def compute(context: Context) -> Numbers:
    """Train on the CPU, and compare the first step with plain PyTorch."""
    from bench_train_sides import PlainPolicy

    from megatron_trace.config import Precision

    shape = NUMBERS[context.device]
    folder, rows = make_model(model_of(context), shape), some_rows(shape.vocabulary)
    # Before a policy is built, which changes torch for the whole process.
    plain = PlainPolicy(str(folder), Precision.float32, MICRO_BATCH_TOKENS).step(rows)
    numbers = train(settings(folder, "precision.train=float32"), rows, end_of(context))
    for name, right in plain.items():
        found = numbers.updates[0][name]
        text = f"{name} {found:.5f} on the CPU, {right:.5f} in plain PyTorch"
        require(abs(found - right) <= TOLERANCE * abs(right), text)
    return numbers


def main() -> None:
    """Compute the numbers; leave them in WORK, or what was wrong with them."""
    context = Context(sys.argv[1], Path(sys.argv[2]))
    try:
        numbers = compute(context)
    except Wrong as wrong:
        (context.work / "cpu_numbers.failed").write_text(str(wrong))
        raise
    (context.work / "cpu_numbers.pickle").write_bytes(pickle.dumps(numbers))


if __name__ == "__main__":
    main()
