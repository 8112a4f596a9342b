"""A plan before anyone queues: what every GPU holds, whether it fits, and how long a step may take.

Nothing here starts a process, loads a weight or needs a GPU. docs/cluster_plan.md says what is
counted and how.
"""
