"""From trees to losses: advantages, training rows, batches, and the loss functions."""

from megatron_trace.learning.estimator import ESTIMATORS, make_estimator
from megatron_trace.learning.rows import Row, rows_from_tree, rows_from_trees

__all__ = ["ESTIMATORS", "Row", "make_estimator", "rows_from_tree", "rows_from_trees"]
