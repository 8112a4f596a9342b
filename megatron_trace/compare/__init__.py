"""Strategies against each other at equal cost: a grid of runs, what it says statistically, and a
page about it.
"""
