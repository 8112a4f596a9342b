"""A sandbox for Python code that a policy wrote.

    sandbox = Sandbox(Limits(cpu_s=5), size=16)
    sandbox.run("print(2 ** 10)")           # Outcome(stdout="1024\\n", stderr="", status="ok")

A worker has one *server*: an interpreter in bubblewrap, without network, files, or variables of the
machine, which has imported sympy and numpy. For every call it forks a process, the first of a new
process namespace, which makes its other namespaces and a new empty folder, locks itself in, and runs
the code. So a call costs some ten milliseconds, and no other call has touched the state in which it
begins:

- The code gives back its printed bytes and its exit status, which the kernel tells. There is no
  protocol that it could forge. It has three descriptors.
- It is the first process of its own process namespace and may make no other. It cannot name the
  server or another call, so it cannot signal or trace them. When it ends, its namespace
  ends.
- Its folder is a mount that ends with it. All else is read-only. There is no /proc.
- Its memory is a copy of the server's: what it changes there, nobody sees.
- It may make about a hundred system calls (`inside/syscalls.py`); all others are refused.

A server in which calls ran beside each other without namespaces of their own would be as fast, but
a call could trace, signal or slow the server and leave files. Single-use interpreters started ahead
are as safe, but each costs half a second of CPU time for its imports.

docs/environments/sandbox.md says what holds and what does not.
"""

from megatron_trace.envs.sandbox.launch import Isolation, SandboxError
from megatron_trace.envs.sandbox.limits import Limits, Outcome, Status
from megatron_trace.envs.sandbox.pool import Sandbox

__all__ = ["Isolation", "Limits", "Outcome", "Sandbox", "SandboxError", "Status"]
