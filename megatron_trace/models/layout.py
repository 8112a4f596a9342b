"""What a layout of train ranks requires of tokens and matrices. Used by checks, plans, policy."""

import math

from megatron_trace.config import Config, FP8Recipe, ParallelConfig, Precision


def sequence_parallel(parallel: ParallelConfig) -> bool:
    """Whether tensor-parallel ranks split the sequence between their matrices.

    As set; by default wherever there are several such ranks.
    """
    if parallel.sequence is None:
        return parallel.tensor > 1
    return parallel.sequence


def padding(config: Config) -> int:
    """Multiple of tokens to which every micro-batch is padded.

    Context parallelism cuts a micro-batch into 2·context chunks. Sequence parallelism and FP8 need
    a multiple of tokens on each context-parallel rank.
    """
    parallel = config.parallel
    chunks = 2 * parallel.context if parallel.context > 1 else 1
    slices = parallel.tensor if sequence_parallel(parallel) else 1
    return math.lcm(chunks, parallel.context * slices * fp8_multiple(config))


def fp8_multiple(config: Config) -> int:
    """Multiple that FP8 requires of the rows and columns of every matrix; 1 without FP8."""
    if config.precision.train is not Precision.fp8:
        return 1
    return 32 if config.precision.fp8_recipe is FP8Recipe.mxfp8 else 16
