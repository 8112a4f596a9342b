"""Shared by all tests: how hypothesis and torch run here."""

import os

from hypothesis import settings

# Before torch is imported: the two processes of `make test` would otherwise fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Machines differ in speed; no deadline and fixed seeds make runs repeatable.
settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")
