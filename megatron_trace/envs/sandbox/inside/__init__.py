"""What runs within the sandbox. Standard library alone: nothing else of the project is there.

`server.py` waits for calls, `calls.py` begins and ends them, `cage.py` and `syscalls.py` lock it in, and
`program.py` runs the policy's code.
"""
