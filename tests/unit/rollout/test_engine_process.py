"""What the process of an engine loads: vLLM's CPU worker fails on some modules of environments."""

import ast
import subprocess
import sys
from pathlib import Path

from megatron_trace.rollout import vllm

MODEL = Path(vllm.__file__).with_name("model.py")
"""What vLLM imports there, with the packages around it."""


def own_imports(file: Path) -> list[str]:
    """Modules of this project that `file` imports."""
    nodes = ast.walk(ast.parse(file.read_text()))
    modules = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return [module for module in modules if module.startswith("megatron_trace.")]


def test_it_loads_no_environment_and_no_numba() -> None:
    modules = [vllm.__name__, *own_imports(MODEL)]
    assert len(modules) > 3
    code = f"""
import sys, {", ".join(modules)}
loaded = [name for name in ("megatron_trace.envs", "bm25s", "numba") if name in sys.modules]
sys.exit(", ".join(loaded) or 0)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
