"""A call sees nothing of any other, and the same code brings the same result."""

import time
from concurrent.futures import ThreadPoolExecutor

from megatron_trace.envs.sandbox import Outcome, Sandbox

TRACES = """
import builtins, os, sys, random, math, sympy
builtins.left = sys.left = math.left = 1
math.pi = 3
sympy.Symbol = None
random.seed(7)
os.environ['LEFT'] = '1'
for name in ('a', 'b/c'):
    os.makedirs(os.path.dirname(name) or '.', exist_ok=True)
    open(name, 'w').write('left')
os.symlink('/usr/lib', 'link')
os.chmod('.', 0)
os.umask(0o777)
os.chdir('/')
"""
LOOK = """
import builtins, os, sys, random, math, sympy
print(any(hasattr(module, 'left') for module in (builtins, sys, math)), math.pi == 3)
print(sympy.Symbol('x'), 'LEFT' in os.environ, os.listdir(), oct(os.stat('.').st_mode))
print(os.getcwd(), os.getpid(), random.random(), os.umask(0))
"""


def test_nothing_of_a_call_is_left(sandbox: Sandbox) -> None:
    before = sandbox.run(LOOK)
    assert sandbox.run(TRACES).status == "ok"
    assert sandbox.run(LOOK) == before and before.status == "ok"
    assert before.stdout.startswith("False False\nx False [] 0o40700\n/scratch 1 ")


def test_calls_at_the_same_time_do_not_see_each_other(sandbox: Sandbox) -> None:
    code = (
        "import os, time\nopen('mine{0}', 'w').close()\ntime.sleep(0.5)\n"
        "print(os.listdir(), os.getpid())"
    )
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(sandbox.run, [code.format(n) for n in range(8)]))
    assert outcomes == [Outcome(f"['mine{n}'] 1\n", "", "ok") for n in range(8)]


def test_locks_on_files_that_all_calls_see_are_refused(sandbox: Sandbox) -> None:
    code = (
        "import fcntl\nfile = open('/etc/ld.so.cache')\n"
        "for lock in fcntl.flock, fcntl.lockf:\n    try: print(lock(file, fcntl.LOCK_SH))\n"
        "    except OSError as error: print(error.strerror)"
    )
    assert sandbox.run(code).stdout == "Function not implemented\n" * 2


def test_the_same_code_brings_the_same_result(sandbox: Sandbox) -> None:
    code = (
        "import random, numpy\nprint(random.random(), numpy.random.rand(), hash('a'))\n"
        "print({'a', 'b', 'c', 'd'}, id(object) and 1)"
    )
    other = Sandbox()
    assert sandbox.run(code) == sandbox.run(code) == other.run(code)
    other.close()


def test_a_call_waits_for_a_place_and_no_longer() -> None:
    sandbox = Sandbox(size=2)
    begin = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(sandbox.run, ["import time; time.sleep(0.3)"] * 4))
    assert time.monotonic() - begin >= 0.6
    sandbox.close()
