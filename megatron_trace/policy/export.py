"""Writes the policy as a Hugging Face folder, with its tokenizer and predictor."""

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor, distributed

from megatron_trace.models.predictor import FILE, NAMES
from megatron_trace.policy.hf_writer import write_folder
from megatron_trace.policy.weights import ModelWeights, drain


def export(weights: ModelWeights, assets: Path, path: Path) -> None:
    """Write the folder `path`, which appears whole or not at all. Collective over all train ranks.

    Args:
        assets: the folder whose configuration and tokenizer are copied.

    Raises:
        OSError: on rank 0, when all ranks are through with it.
    """
    everything = weights.stream(with_tied_head=False, with_predictor=True)
    problem: OSError | None = None
    if distributed.get_rank() == 0:
        try:
            _write(everything, weights, assets, path)
        except OSError as error:
            problem = error
    # On the other ranks all of it; on rank 0 what an error left. Gathering is collective.
    drain(everything)
    distributed.barrier()
    if problem is not None:
        raise problem


def _write(
    everything: Iterator[tuple[str, Tensor]], weights: ModelWeights, assets: Path, path: Path
) -> None:
    metadata = weights.metadata(with_tied_head=False, with_predictor=False)
    predictor: dict[str, Tensor] = {}

    def model_only() -> Iterator[tuple[str, Tensor]]:
        # The stream can be walked once, on all ranks together. So the predictor's tensors, which go
        # to a file of their own, are put aside as they pass.
        for name, tensor in everything:
            if name in NAMES:
                predictor[name] = tensor
            else:
                yield name, tensor

    write_folder(
        path, assets, model_only(), metadata, {FILE: predictor}, config_dtype=metadata[0][1]
    )
