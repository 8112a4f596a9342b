"""Shared by all tests: how hypothesis runs here."""

from hypothesis import settings

# Machines differ in speed; no deadline and fixed seeds make runs repeatable.
settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")
