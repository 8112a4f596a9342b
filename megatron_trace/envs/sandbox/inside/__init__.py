"""What runs within the sandbox. Standard library alone: nothing else of the project is there.

`server.py` waits for calls, `keeper.py` plays one, `cage.py` and `syscalls.py` lock it in, and
`program.py` runs the policy's code.
"""
