"""The import rules of docs/architecture.md hold."""

import subprocess
import sys
from pathlib import Path


def test_rooms_import_only_what_they_may() -> None:
    result = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout


def test_the_config_imports_without_torch() -> None:
    code = "import sys, megatron_trace.check.command; sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
