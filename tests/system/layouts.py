"""Layouts of train ranks: what their settings add to those of a single one."""

TWO = {
    "tensor2": ["parallel.tensor=2"],
    "tensor2-whole": ["parallel.tensor=2", "parallel.sequence=false"],
    "pipeline2": ["parallel.pipeline=2"],
    "interleaved": ["parallel.pipeline=2", "parallel.interleave=2"],
    "context2": ["parallel.context=2"],
    "data2": [],
    "overlapped": ["parallel.overlap_grad_reduce=true", "parallel.overlap_param_gather=true"],
}
"""Of two ranks, for a dense model of four layers."""

FOUR = {
    "tensor2-context2": [
        "parallel.tensor=2",
        "parallel.context=2",
        "recompute.granularity=selective",
    ],
    "context2-interleaved": ["parallel.context=2", "parallel.pipeline=2", "parallel.interleave=2"],
    "context4": ["parallel.context=4"],
    "pipeline4": ["parallel.pipeline=4", "recompute.granularity=full"],
    "tensor2-interleaved": ["parallel.tensor=2", "parallel.pipeline=2", "parallel.interleave=2"],
    "interleaved-overlapped": [
        *("parallel.pipeline=2", "parallel.interleave=2"),
        *("parallel.overlap_grad_reduce=true", "parallel.overlap_param_gather=true"),
    ],
}
"""Of four ranks."""

RECOMPUTE = {
    "attention": ["recompute.granularity=selective"],
    "modules": ["recompute.granularity=selective", "recompute.modules=[core_attn,layernorm,mlp]"],
    "uniform": ["recompute.granularity=full", "recompute.layers=2"],
    "block": ["recompute.granularity=full", "recompute.method=block", "recompute.layers=2"],
}
"""Of one rank."""
