"""Tools are scripts, not a package: tests load them by file."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).parents[3] / "tools"


@pytest.fixture(scope="session")
def load_tool():
    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def geo_hop(load_tool, tmp_path_factory) -> Path:
    """GeoHop, built once for the session."""
    folder = tmp_path_factory.mktemp("geo_hop")
    load_tool("build_geo_hop").build(folder, seed=0)
    return folder
