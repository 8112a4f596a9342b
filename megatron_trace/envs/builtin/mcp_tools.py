"""The tools of an MCP server, for questions with an answer.

A task is `{"question": "…", "answer": "…"}`. The server is a command that is started in every worker,
or a URL. All episodes of a worker share one connection, so a call must not change what later calls
see: the server's tools look things up, or compute.
"""

import asyncio
import shlex
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_trace.config import setting
from megatron_trace.config.functions import find_function
from megatron_trace.envs.answer_scores import exact_match
from megatron_trace.envs.tool_environment import ToolEnvironment
from megatron_trace.models.messages import Tool

START_S = 60.0
"""Seconds in which a server must be ready."""


class ToolError(Exception):
    """What a tool of the server says is wrong with a call; the policy is told."""


class Connection:
    """A client of a server, in a thread of its own with an event loop; several threads may call it.

    Attributes:
        tools: schemas of the server's tools.
    """

    def __init__(self, server: str) -> None:
        """Connect.

        Args:
            server: a URL, or a command line.

        Raises:
            ValueError: the package mcp is missing, or the server is not ready in time.
        """
        self._server = server
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="mcp", daemon=True).start()
        try:
            self._client: Any = self._run(self._connect(), START_S)
            self.tools = self._run(self._list(), START_S)
        except ImportError:
            raise ValueError("it needs the package mcp: pip install mcp") from None
        # What a transport raises is its own.
        except Exception as error:
            raise ValueError(f"the MCP server {server!r} is not ready: {_told(error)}") from None

    def call(self, name: str, arguments: Mapping[str, Any], limit_s: float) -> str:
        """What a tool returns, as text. A connection that was lost is made again.

        Raises:
            ToolError: the tool says that the call was wrong.
            TimeoutError: it took longer than `limit_s` seconds.
            ConnectionError: the server has gone, or cannot be reached.
        """
        try:
            client = self._connected()
            result = self._run(client.call_tool(name, dict(arguments)), limit_s)
        except TimeoutError:
            raise
        except Exception as error:
            self._client = None
            raise ConnectionError(f"the MCP server {self._server!r}: {_told(error)}") from error
        text = "\n".join(_text_of(part) for part in result.content)
        if result.is_error:
            raise ToolError(text)
        return text

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._run(self._connect(), START_S)
            return self._client

    def _run(self, coroutine: Any, limit_s: float) -> Any:
        waited = asyncio.wait_for(coroutine, limit_s)
        return asyncio.run_coroutine_threadsafe(waited, self._loop).result()

    async def _connect(self) -> Any:
        from mcp import Client, StdioServerParameters

        target: Any = self._server
        if not self._server.startswith(("http://", "https://")):
            command, *arguments = shlex.split(self._server)
            target = StdioServerParameters(command=command, args=arguments)
        return await Client(target).__aenter__()

    async def _list(self) -> list[Tool]:
        tools: list[Tool] = []
        cursor = None
        while True:
            page = await self._client.list_tools(cursor=cursor)
            tools += [_schema_of(tool) for tool in page.tools]
            cursor = page.next_cursor
            if not cursor:
                return tools


@dataclass(frozen=True)
class Shared:
    """What the episodes of a worker share.

    Attributes:
        judge: reward of a task and an answer.
    """

    connection: Connection
    judge: Callable[[Mapping[str, Any], str], float]


class McpTools(ToolEnvironment):
    """One question. A server that does not answer fails the rollout, not the policy."""

    retryable = (ConnectionError,)

    @dataclass
    class Options(ToolEnvironment.Options):
        """The server, and how an answer is judged."""

        server: str = setting("", "a URL, or the command line that starts the server (stdio)")
        score: str = setting(
            "",
            "FILE.py:FUNCTION that gives the reward of a task and an answer; empty: exact match "
            "with the task's answer",
        )

    def __init__(self, options: Options, max_turns: int, shared: Shared) -> None:
        """An episode that `reset` or `restore` starts."""
        super().__init__(options, max_turns, shared)
        self.tools = shared.connection.tools

    @classmethod
    def load(cls, options: Options) -> Shared:
        """Connect to the server.

        Raises:
            ValueError: it cannot be reached.
            SettingError: there is no such function.
        """
        judge: Any = _matches
        if options.score:
            judge = find_function("environment.options.mcp_tools.score", options.score, 2)
        return Shared(Connection(options.server), judge)

    @classmethod
    def reads(cls, options: Options) -> Mapping[str, Path | str]:
        """The file of the function that judges answers."""
        file = options.score.rpartition(":")[0]
        return {f"score/{Path(file).name}": Path(file)} if file else {}

    def check_task(self, task: Mapping[str, Any]) -> None:
        """Refuse a task without a question.

        Raises:
            ValueError: what is wrong.
        """
        if not isinstance(task.get("question"), str) or not task["question"].strip():
            raise ValueError(f"question must be a text, not {task.get('question')!r}")
        if not self.options.score and "answer" not in task:
            raise ValueError("has no answer; give one, or set environment.options.mcp_tools.score")

    def start(self, task: Mapping[str, Any]) -> str:
        """The question."""
        return task["question"]

    def score(self, answer: str) -> float:
        """What `score` says, or whether the answer is the task's."""
        return float(self.shared.judge(self.task, answer))

    def use(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Call a tool of the server."""
        return self.shared.connection.call(name, arguments, self.options.tool_timeout_s)


def _matches(task: Mapping[str, Any], answer: str) -> float:
    return float(exact_match(answer, [str(task["answer"])]))


def _schema_of(tool: Any) -> Tool:
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description or tool.name,
            "parameters": tool.input_schema,
        },
    }


def _text_of(part: Any) -> str:
    if getattr(part, "type", "") == "text":
        return part.text
    return f"[{getattr(part, 'type', 'content')} that is no text]"


def _told(error: BaseException) -> str:
    # A transport's errors come in groups.
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
