"""The tools of MCP servers, over stdio and HTTP; a server that dies is started again."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from megatron_trace.config import EnvironmentConfig
from megatron_trace.envs import Reply, ToolCall, make_environments
from megatron_trace.envs.contract import check_contract

SERVER = """
import os, sys, time
from mcp.server import MCPServer

server = MCPServer("test")

@server.tool()
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b

@server.tool()
def die() -> str:
    "End the server."
    os._exit(3)

@server.tool()
def wait() -> str:
    "Wait."
    time.sleep(30)

if len(sys.argv) > 1:
    server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
else:
    server.run()
"""
TASK = {"id": "0", "question": "What is 2 + 3?", "answer": "5"}


@pytest.fixture(scope="module")
def script(tmp_path_factory: Any) -> Path:
    file = tmp_path_factory.mktemp("mcp") / "server.py"
    file.write_text(SERVER)
    return file


@pytest.fixture(scope="module")
def over_stdio(script: Path) -> Any:
    return maker(f"{sys.executable} {script}")


@pytest.fixture(scope="module")
def url(script: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, str(script), str(port)])
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}/mcp"
    server.kill()
    server.wait()


def maker(server: str, **options: Any) -> Any:
    given = {"mcp_tools": {"server": server, **options}}
    return make_environments(EnvironmentConfig("mcp_tools", 9, given))


def call(name: str, **arguments: Any) -> Reply:
    return Reply("", calls=(ToolCall(name, arguments, "call_0"),))


def told(episode: Any, reply: Reply) -> str:
    return episode.step(reply).observation[0]["content"]


def begun(make: Any) -> Any:
    episode = make()
    episode.reset(TASK)
    return episode


def test_it_keeps_the_contract(over_stdio: Any) -> None:
    check_contract(over_stdio, TASK, [call("add", a=2, b=3), call("add", a=2), Reply("5")])


def test_its_tools_are_the_servers(over_stdio: Any) -> None:
    episode = begun(over_stdio)
    add = episode.tools[0]["function"]
    assert add["name"] == "add" and add["description"] == "Add two numbers."
    assert told(episode, call("add", a=2, b=3)) == "5"
    assert "there is no tool" in told(episode, call("subtract"))
    assert episode.step(Reply("5.")).reward == 1.0
    assert begun(over_stdio).step(Reply("6")).reward == 0.0


def test_over_http(url: str) -> None:
    assert told(begun(maker(url)), call("add", a=20, b=3)) == "23"


def test_a_server_that_dies_fails_the_step_and_is_started_again(over_stdio: Any) -> None:
    episode = begun(over_stdio)
    with pytest.raises(ConnectionError, match="the MCP server"):
        episode.step(call("die"))
    assert told(episode, call("add", a=1, b=1)) == "2"


def test_a_tool_that_takes_too_long_is_told(script: Path) -> None:
    episode = begun(maker(f"{sys.executable} {script}", tool_timeout_s=0.5))
    assert told(episode, call("wait")).startswith("Error: ")


@pytest.mark.parametrize("server", ["no-such-command", "http://127.0.0.1:9/mcp"])
def test_a_server_that_cannot_be_reached_is_refused(server: str) -> None:
    with pytest.raises(ValueError, match=r"the MCP server .* is not ready"):
        maker(server)


def test_a_function_may_judge(script: Path, tmp_path: Path) -> None:
    file = tmp_path / "judge.py"
    file.write_text("def near(task, answer):\n    return 1 / (1 + abs(float(answer) - 5))\n")
    make = maker(f"{sys.executable} {script}", score=f"{file}:near")
    assert begun(make).step(Reply("6")).reward == 0.5
