"""Advantage estimators, one in each file: what credit a turn gets from the terminal rewards of its tree.

Every file defines `estimate` (see `learning/estimator.py`), and is found by its name. An estimator sees
one task's tree, whatever strategy grew it. docs/advantages.md compares them.
"""
