"""The Berkeley Function Calling Leaderboard, version 4, as plain functions and one simulation.

It uses the package bfcl-eval: its data, its simulated APIs and its checkers. Patil et al., "The
Berkeley Function Calling Leaderboard (BFCL)", ICML 2025.
"""
