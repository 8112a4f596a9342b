"""Watch a run in a browser: its report as it is now, made again whenever a step ends.

    python tools/watch.py runs/trace

It reads the run's files alone. So it works during the run and after it, on any machine that has the
files. It answers on this machine only; from another one, open a tunnel first:

    ssh -L 8100:127.0.0.1:8100 LOGIN_NODE
"""

import argparse
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from megatron_trace.report.history import decoder
from megatron_trace.report.run_page import live_page
from megatron_trace.report.tree_text import Decode

LOOPBACK = "127.0.0.1"

NAMES = (LOOPBACK, "localhost")
"""What a browser may call this server. A page elsewhere that has its own name point here could
otherwise read the run.
"""


class LivePage:
    """The page of a run, made once for every version of the run's files."""

    def __init__(self, run_dir: Path, decode: Decode) -> None:
        """Of the run in `run_dir`; nothing is made yet."""
        self._run_dir = run_dir
        self._decode = decode
        self._made: tuple[str, str] | None = None
        self._one_at_a_time = threading.Lock()

    def version(self) -> str:
        """Another text when a step or an evaluation has ended."""
        try:
            status = (self._run_dir / "metrics.jsonl").stat()
        except FileNotFoundError:
            return "no step yet"
        return f"{status.st_mtime_ns}-{status.st_size}"

    def page(self) -> str:
        """The page of the files as they are now."""
        with self._one_at_a_time:
            version = self.version()
            if self._made is None or self._made[0] != version:
                page = live_page(self._run_dir, decode=self._decode, version=version)
                self._made = version, page
            return self._made[1]


def serve(live: LivePage, port: int) -> ThreadingHTTPServer:
    """A server of the page on loopback, which does not answer before `serve_forever`.

    Args:
        port: 0 takes a free one.

    Raises:
        OSError: the port is taken.
    """
    texts: dict[str, tuple[str, Callable[[], str]]] = {
        "/": ("text/html", live.page),
        "/version": ("text/plain", live.version),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # Not `self.path`: a browser may send a query, such as one that passes its cache.
            found = texts.get(urlsplit(self.path).path)
            if urlsplit(f"//{self.headers.get('Host', '')}").hostname not in NAMES:
                self._answer(403, "text/plain", f"open http://{LOOPBACK} instead")
            elif found is None:
                self._answer(404, "text/plain", "there is / and /version")
            else:
                kind, make = found
                status = 200
                try:
                    text = make()
                except Exception:
                    # A file may be gone while it is read; the next version of the page mends it.
                    status, kind, text = 500, "text/plain", traceback.format_exc()
                self._answer(status, kind, text)

        def _answer(self, status: int, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            # The browser may have closed the page meanwhile.
            with suppress(ConnectionError):
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing: every browser asks every two seconds."""

    return ThreadingHTTPServer((LOOPBACK, port), Handler)


def main() -> None:
    """Parse the command line and serve until interrupted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--port", type=int, default=8100, help="0 takes a free one")
    parser.add_argument(
        "--tokenizer", help="HF folder of the tokenizer; by default the run's start policy"
    )
    args = parser.parse_args()
    if not (args.run / "config.yaml").exists():
        raise SystemExit(f"{args.run} has no config.yaml; name a run's folder")
    try:
        server = serve(LivePage(args.run, decoder(args.run, args.tokenizer)), args.port)
    except OSError as error:
        raise SystemExit(f"--port {args.port}: {error.strerror}; choose another port") from None
    print(f"http://{LOOPBACK}:{server.server_port}  (Ctrl-C ends it)", flush=True)
    with suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main()
