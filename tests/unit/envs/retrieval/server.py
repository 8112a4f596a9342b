"""A real server on this machine that speaks `/retrieve`, well or badly."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, bytes]
"""Status and body."""


def hits(*texts: str) -> bytes:
    """An answer to one query, in Search-R1's form."""
    found = [{"document": {"contents": f'"T{text}"\n{text}'}, "score": 0.5} for text in texts]
    return json.dumps({"result": [found]}).encode()


class Server(ThreadingHTTPServer):
    """Attributes:
    asked: the requests so far.
    answer: from a request and its number, from 1, to the answer.
    at_once, most_at_once: requests in work now, and the most there ever were.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answer: Callable[[dict[str, Any], int], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.asked: list[dict[str, Any]] = []
        self.drip_s = 0.0
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/retrieve"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        request = json.loads(self.rfile.read(size))
        with self.server.lock:
            self.server.asked.append(request)
            number = len(self.server.asked)
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        try:
            status, body = self.server.answer(request, number)
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", "/elsewhere")
            self.end_headers()
            for byte in range(len(body)) if self.server.drip_s else ():
                self.wfile.write(body[byte : byte + 1])
                time.sleep(self.server.drip_s)
            if not self.server.drip_s:
                self.wfile.write(body)
        except OSError:
            pass  # the client has gone
        finally:
            with self.server.lock:
                self.server.at_once -= 1

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(answer: Callable[[dict[str, Any], int], Answer] | bytes | Answer) -> Iterator[Server]:
    """A server that gives `answer`: a function, a body, or a status and a body."""
    if isinstance(answer, bytes):
        answer = (200, answer)
    fixed = answer
    server = Server(answer if callable(answer) else lambda request, number: fixed)  # type: ignore
    thread = threading.Thread(target=lambda: server.serve_forever(0.01), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
