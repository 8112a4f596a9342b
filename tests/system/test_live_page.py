"""The live page in a real browser: it loads itself again when a step has ended."""

import importlib.util
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from tests.unit.report.fake_run import decode, fake_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HEADLESS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--virtual-time-budget=10000 --dump-dom"
)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_browser_shows_a_step_that_ended_after_the_page_was_loaded(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("watch", "tools/watch.py")
    assert spec and spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    run_dir = fake_run(tmp_path / "run", steps=2)
    live = tool.LivePage(run_dir, decode)
    make, pages = live.page, list[str]()

    def page() -> str:
        """The page; when the first one has been made a step ends."""
        pages.append(make())
        if len(pages) == 1:
            with (run_dir / "metrics.jsonl").open("a") as file:
                file.write('{"step": 3, "effective_ratio": 0.5}\n')
        return pages[-1]

    live.page = page
    with tool.serve(live, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        browser = [str(CHROMIUM), *HEADLESS.split(), f"--user-data-dir={tmp_path}/browser", url]
        shown = subprocess.run(browser, capture_output=True, text=True, timeout=120).stdout
        server.shutdown()
    assert len(pages) == 2
    assert "3 of 2 steps" in shown
