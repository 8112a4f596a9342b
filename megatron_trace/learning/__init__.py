"""From trees to losses: advantages, training rows, batches, and the loss functions."""

from megatron_trace.learning.advantages import ADVANTAGES
from megatron_trace.learning.rows import Row, rows_from_tree, rows_from_trees

__all__ = ["ADVANTAGES", "Row", "rows_from_tree", "rows_from_trees"]
