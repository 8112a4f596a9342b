"""`Sandbox`: runs code, from any thread, as many calls at a time as it has places."""

import threading
from concurrent.futures import ThreadPoolExecutor

from megatron_trace.config.setting import check_bounds
from megatron_trace.envs.sandbox.call import ServerGone, make_call
from megatron_trace.envs.sandbox.launch import Isolation, SandboxError, Server, start
from megatron_trace.envs.sandbox.limits import Limits, Outcome

TRIES = 2
"""How often a call is made whose server dies. The code cannot kill it; a lack of memory can."""


class Sandbox:
    """Runs Python code that nobody trusts. Its methods may be called from any thread."""

    def __init__(
        self, limits: Limits | None = None, size: int = 16, isolation: Isolation = "namespaces"
    ) -> None:
        """Start the server, and try it with a call.

        Args:
            limits: of every call.
            size: most calls at the same time; others wait. So a sandbox uses at most `size` times
                `memory_mib` and `scratch_mib`.
            isolation: `process` is weaker, for machines without user namespaces: the code can read
                and write whatever the worker can (docs/environments/sandbox.md).

        Raises:
            SandboxError: it cannot start; the message says what is missing and what to do.
            SettingError: a limit is out of its bounds.
        """
        self._limits = limits or Limits()
        check_bounds(self._limits)
        self._isolation = isolation
        self._places = threading.Semaphore(size)
        self._lock = threading.Lock()
        self._closed = False
        # The kernel kills a server with the *thread* that started it, and calls come from threads
        # that end. This thread lives as long as the sandbox.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="sandbox")
        self._server: Server | None = None
        try:
            outcome = self.run("print(6 * 7)")
            if outcome != Outcome("42\n", "", "ok"):
                raise SandboxError(f"the sandbox does not work: a call brought {outcome}")
        except BaseException:
            self.close()
            raise

    def run(self, code: str) -> Outcome:
        """Run `code` in a new process that nothing of an earlier call is in; waits for its end.

        Raises:
            SandboxError: the sandbox is closed, or cannot work. Never because of the code.
        """
        with self._places:
            for _ in range(TRIES):
                server = self._running()
                try:
                    return make_call(server.calls, code, self._limits)
                except ServerGone as error:
                    cause = error
                    self._replace(server)
        raise SandboxError(f"the sandbox died {TRIES} times during a call: {cause}")

    def close(self) -> None:
        """End the server and all calls."""
        with self._lock:
            self._closed = True
            server, self._server = self._server, None
        if server:
            server.end()
        self._starter.shutdown()

    def _running(self) -> Server:
        with self._lock:
            if self._closed:
                raise SandboxError("the sandbox is closed")
            if self._server is None:
                starting = self._starter.submit(start, self._limits, self._isolation)
                self._server = starting.result()
            return self._server

    def _replace(self, server: Server) -> None:
        """Forget a server that is dead or does not answer, unless another call has done so."""
        with self._lock:
            if self._server is not server:
                return
            self._server = None
        server.end()
