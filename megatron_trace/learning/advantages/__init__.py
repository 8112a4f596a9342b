"""Advantage estimators, one in each file: the credit of a turn for its tree's terminal rewards.

Every file defines `estimate` (see `learning/estimator.py`), and is found by its name. An estimator
sees one task's tree, whatever strategy grew it. docs/advantages.md compares them.
"""
