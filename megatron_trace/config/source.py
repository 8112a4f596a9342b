"""A FILE.py that a setting names: loaded once, and its errors in one line."""

import functools
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from megatron_trace.config.error import one_line

FOREIGN = (Exception, SystemExit)
"""What a user's file may raise. SystemExit would end the program without any message."""


def load_source(path: Path, module_name: str) -> ModuleType:
    """The module of the file `path`; a file that has been modified since is loaded again.

    Raises:
        OSError: there is no such file.
        Exception, SystemExit: whatever the file raises.
    """
    return _load(path, module_name, path.stat().st_mtime_ns)


# A file is looked up several times, by the checks and by its users. Loaded each time, its classes
# would differ, and a step would run the file once for each of its lookups.
@functools.cache
def _load(path: Path, module_name: str, modified_ns: int) -> ModuleType:
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and OmegaConf resolve annotations in the class's module, and look for it in
    # sys.modules.
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return module


def place_of(error: BaseException, path: Path) -> str:
    """The error in one line, with the last line of the file `path` that was being run."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    # A file that does not parse was never run: it is in no frame.
    if isinstance(error, SyntaxError) and error.lineno is not None:
        lines.append(error.lineno)
    where = f"line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {one_line(error)}"
