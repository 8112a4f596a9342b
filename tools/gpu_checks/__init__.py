"""The checks of tools/check_gpu.py.

check.py       what a check is, and how it passes, fails or is skipped
catalogue.py   all checks, in their order; checks of a group share a process
supervise.py   runs the groups in processes, and ends what takes too long
worker.py      what runs in such a process

The other files hold the checks. Those of machine.py and kernels.py need PyTorch alone.
"""
