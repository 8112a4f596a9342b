"""Shared by all tests: how hypothesis runs here."""

from hypothesis import settings

settings.register_profile(
    "house", deadline=None, derandomize=True
)  # machines differ in speed, runs should not
settings.load_profile("house")
