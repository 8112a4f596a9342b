"""What a layout of train ranks asks of tokens and matrices: facts that checks, plans and the policy share."""

import math

from megatron_trace.config import Config, FP8Recipe, ParallelConfig, Precision


def sequence_parallel(parallel: ParallelConfig) -> bool:
    """Whether tensor-parallel ranks split the sequence between their layers: as set, or wherever there are some."""
    return parallel.tensor > 1 if parallel.sequence is None else parallel.sequence


def padding(config: Config) -> tuple[int, int]:
    """Multiples of tokens to which every row, and every micro-batch, is padded.

    Context parallelism cuts a row into 2·context chunks; sequence parallelism and FP8 ask it of a rank's tokens.
    """
    parallel = config.parallel
    row = 2 * parallel.context if parallel.context > 1 else 1
    slices = parallel.tensor if sequence_parallel(parallel) else 1
    return row, math.lcm(row, parallel.context * slices * fp8_multiple(config))


def fp8_multiple(config: Config) -> int:
    """Rows and columns of every matrix must come in multiples of this for FP8; 1 without."""
    if config.precision.train is not Precision.fp8:
        return 1
    return 32 if config.precision.fp8_recipe is FP8Recipe.mxfp8 else 16
