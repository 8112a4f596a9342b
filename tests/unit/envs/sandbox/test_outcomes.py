"""What a caller is told of a call."""

import pytest

from megatron_trace.envs.sandbox import Outcome, Sandbox


def test_what_was_printed_comes_back(sandbox: Sandbox) -> None:
    code = "import sys\nprint('é 数')\nprint('warning', file=sys.stderr)"
    assert sandbox.run(code) == Outcome("é 数\n", "warning\n", "ok")


def test_mathematics_is_there(sandbox: Sandbox) -> None:
    code = (
        "from fractions import Fraction\nimport numpy as np\nimport sympy as sp\n"
        "x = sp.Symbol('x')\n"
        "print(Fraction(1, 3) + 1, sp.integrate(x**2, x), np.arange(4).sum())"
    )
    assert sandbox.run(code).stdout == "4/3 x**3/3 6\n"


def test_a_trace_begins_in_the_code_and_shows_its_lines(sandbox: Sandbox) -> None:
    outcome = sandbox.run("def f():\n    return 1 / 0\nf()\n")
    assert outcome.status == "error"
    lines = outcome.stderr.splitlines()
    assert lines[1].strip() == 'File "<code>", line 3, in <module>' and lines[2].strip() == "f()"
    assert lines[-1] == "ZeroDivisionError: division by zero" and "inside" not in outcome.stderr


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("exit()", "ok", ""),
        ("import sys; sys.exit(0)", "ok", ""),
        ("raise SystemExit(3)", "error", ""),
        ("import sys; sys.exit('bye')", "error", "bye\n"),
        ("import os; os._exit(0)", "ok", ""),
        ("import os; os._exit(9)", "error", ""),
        ("raise KeyboardInterrupt", "error", "KeyboardInterrupt\n"),
        ("raise BaseException", "error", "BaseException\n"),
        ("if", "error", "SyntaxError: invalid syntax\n"),
        ("print(1)\0", "error", "null bytes\n"),
        ("'\ud800'", "error", "surrogates not allowed\n"),
        ("print('\\ud800')", "error", "surrogates not allowed\n"),
        ("import os; os.abort()", "killed", ""),
        ("import ctypes; ctypes.string_at(0)", "killed", ""),
        ("input()", "error", "EOFError: EOF when reading a line\n"),
        ("def f(): f()\nf()", "error", "maximum recursion depth exceeded\n"),
        ("", "ok", ""),
    ],
)
def test_how_code_ends(sandbox: Sandbox, code: str, status: str, error: str) -> None:
    outcome = sandbox.run(code)
    assert outcome.status == status and outcome.stderr.endswith(error), outcome


def test_a_stack_overflow_is_told(sandbox: Sandbox) -> None:
    code = (
        "import sys\nsys.setrecursionlimit(10**9)\n"
        "class A:\n    def __repr__(self): return repr(self)\nrepr(A())"
    )
    assert sandbox.run(code).status in ("killed", "memory")


def test_bytes_that_are_no_text_become_text(sandbox: Sandbox) -> None:
    outcome = sandbox.run(r"import os; os.write(1, b'a\xff\xed\xa0\x80\x00b')")
    assert outcome.stdout.encode() and outcome.stdout[:2] == "a\ufffd"
    assert outcome.stdout.endswith("\x00b") and outcome.status == "ok"


def test_what_was_printed_before_the_end_is_there(sandbox: Sandbox) -> None:
    outcome = sandbox.run("print('first')\nimport ctypes; ctypes.string_at(0)")
    assert outcome == Outcome("first\n", "", "killed")


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.close(0); os.close(1); os.close(2); os.closerange(0, 99)",
        "import os, sys; os.dup2(0, 1); os.dup2(0, 2); print('lost')",
        "import sys; sys.stdout = sys.stderr = sys.stdin = None",
        "import sys; del sys.modules['os'], sys.modules['sys']; sys.__dict__.clear()",
        "import builtins; builtins.__dict__.clear()",
        "import os; os._exit = lambda code: None",
        "import gc\nfor o in gc.get_objects():\n    if isinstance(o, dict) and 'run' in o: o.clear()",
    ],
)
def test_code_that_breaks_its_own_interpreter_still_ends(sandbox: Sandbox, code: str) -> None:
    assert sandbox.run(code).status in ("ok", "error", "killed", "timeout")


def test_a_report_cannot_be_forged(sandbox: Sandbox) -> None:
    """Whatever is written to whatever descriptor is output, or goes nowhere."""
    report = '{"ending": 0, "late": false, "cpu_s": 0}'
    code = (
        f"import os\nfor fd in range(256):\n    try: os.write(fd, b'''{report}''' + b'ready')\n"
        "    except OSError: pass\nos._exit(7)"
    )
    text = report + "ready"
    assert sandbox.run(code) == Outcome(text, text, "error")


def test_code_may_be_long(sandbox: Sandbox) -> None:
    assert sandbox.run("#" * 3_000_000 + "\nprint(1)") == Outcome("1\n", "", "ok")
