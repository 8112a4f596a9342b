"""Checkpoints of policy, predictor and optimizer: written in the background, in any layout."""

import atexit
import gc
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.serialization import load_sharded_metadata
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncCallsQueue
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy
from torch import distributed
from torch.distributed.checkpoint import CheckpointException

from megatron_trace.policy.manifest import note_checksums

CONTENT = {
    # One entry for each parameter, whatever layout wrote it, so the checkpoint loads in any other
    # layout.
    "distrib_optim_sharding_type": "fully_reshardable",
    # Only the data-parallel rank that writes the optimizer's state gathers it, in host memory. By
    # default every rank would, and each bucket would lie whole on every GPU meanwhile.
    "distrib_optim_fully_reshardable_mem_efficient": True,
    "chained_optim_avoid_prefix": True,
    "singleton_local_shards": False,
}
# Megatron warns of every folder that is not empty, and ours already holds the run's state.
logging.getLogger("megatron.core.dist_checkpointing.serialization").setLevel(logging.ERROR)

# Megatron 0.19 would by default choose another library for the writing, which is not installed
# everywhere.
ASYNC = (
    {"async_strategy": "mcore"}
    if "async_strategy" in signature(dist_checkpointing.save).parameters
    else {}
)

ALLOW_PICKLE = "NVTE_ALLOW_UNSAFE_PICKLE_EXTRA_STATE"
"""Transformer Engine reads this variable whenever it loads a layer's state."""

WRITERS = 2
"""Processes that write one rank's part."""


class CheckpointWriter:
    """Writes one checkpoint at a time during training. Every method is collective."""

    def __init__(self, chunks: Sequence[Any], optimizer: Any) -> None:
        """For the wrapped `chunks` and the `Optimizer` of this rank."""
        self._chunks, self._optimizer = chunks, optimizer
        self._calls = AsyncCallsQueue()
        # The structure never changes, so Megatron gathers and checks it only in the first save.
        self._strategy = TorchDistSaveShardedStrategy(
            "torch_dist", 1, thread_count=WRITERS, cached_metadata=True
        )
        self._validated = False
        # Megatron collects garbage in every save. Frozen objects, which live as long as the
        # process, are then not walked each time.
        gc.collect()
        gc.freeze()
        # Libraries that count their objects at exit would take the frozen ones for leaks.
        atexit.register(gc.unfreeze)

    def begin(self, folder: Path) -> str:
        """Copy all state and start writing the copy to `folder`, which exists.

        Returns:
            What went wrong, or "".

        Raises:
            AssertionError: the checkpoint before this one is not finished.
        """
        if self._calls.get_num_unfinalized_calls():
            raise AssertionError("a checkpoint is still being written; finish it first")
        try:
            request = dist_checkpointing.save(
                sharded_state(self._chunks, self._optimizer, loading=False),
                str(folder),
                sharded_strategy=self._strategy,
                validate_access_integrity=not self._validated,
                async_sharded_save=True,
                content_metadata=CONTENT,
                **ASYNC,
            )
        except (OSError, RuntimeError) as error:
            # torch.save raises RuntimeError on a full disk.
            return _problem(error)
        if request.async_fn is not None:
            write = partial(_write_and_sum, request.async_fn, folder, distributed.get_rank())
            request = request._replace(async_fn=write)
        self._calls.schedule_async_request(request)
        self._validated = True
        return ""

    def finish(self, *, wait: bool) -> str | None:
        """Complete the checkpoint if all ranks have written their parts.

        Args:
            wait: until they have.

        Returns:
            None while the checkpoint is being written (or there is none), "" when it is complete,
            or what went wrong.
        """
        try:
            return "" if self._calls.maybe_finalize_async_calls(blocking=wait) else None
        except CheckpointException as error:
            # The failed checkpoint is dropped with its queue, so that the next one can begin.
            self._calls = AsyncCallsQueue()
            causes = [str(failure[0]) for failure in error.failures.values()]
            return "; ".join(causes) or "another train rank could not write its part"
        except OSError as error:
            self._calls = AsyncCallsQueue()
            return _problem(error)


def _problem(error: Exception) -> str:
    """What to tell of an error of rank 0's small files.

    Raises:
        Exception: `error`, where other ranks already wait for rank 0 in a collective.
    """
    if distributed.get_world_size() > 1:
        raise error
    return str(error)


def load(chunks: Sequence[Any], optimizer: Any | None, folder: Path, updates: int = 0) -> None:
    """Fill model, predictor and, if given, optimizer from `folder`. Collective.

    Args:
        updates: optimizer updates done when it was written.

    Raises:
        megatron.core.dist_checkpointing.core.CheckpointingException: a tensor is missing or has
            another shape.
    """
    state = dist_checkpointing.load(sharded_state(chunks, optimizer, loading=True), str(folder))
    with _trusted_statistics(chunks):
        for number, chunk in enumerate(chunks):
            chunk.module.load_state_dict(state["model"][number])
    if optimizer is not None:
        optimizer.load(state["optimizer"], updates)


def load_start(chunks: Sequence[Any], folder: Path) -> None:
    """Fill model and predictor from a checkpoint to start from: converted, or another run's.

    The predictor, which the checkpoint may lack, then stays as it was initialised. Transformer
    Engine's FP8 statistics always do: they may be a pickle, and the checkpoint may be a stranger's.

    Raises:
        megatron.core.dist_checkpointing.core.CheckpointingException: a tensor is missing or has
            another shape.
    """
    metadata = load_sharded_metadata(str(folder))
    names = {getattr(entry, "key", key) for key, entry in metadata.items()}
    for number, chunk in enumerate(chunks):
        state = {}
        for name, entry in sharded_state(chunks, None, loading=True)["model"][number].items():
            if "_extra_state" in name:
                continue
            # Megatron raises for an entry that it cannot find, so only those that are there, or
            # must be there, are asked for.
            if entry is None or entry.key in names or not name.startswith("predictor."):
                state[name] = entry
        found = dist_checkpointing.load(state, str(folder))
        chunk.module.load_state_dict(found, strict=False)


@contextmanager
def _trusted_statistics(chunks: Sequence[Any]) -> Iterator[None]:
    """Let Transformer Engine read the statistics of the delayed FP8 recipe, which are a pickle.

    It refuses pickles, since reading one runs what is in it. This one is the run's own, and its
    checksums have just been verified. The other recipes store no statistics.
    """
    settings = chunks[0].module.config
    if not settings.fp8 or settings.fp8_recipe != "delayed":
        yield
        return
    before = os.environ.get(ALLOW_PICKLE)
    os.environ[ALLOW_PICKLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[ALLOW_PICKLE]
        else:
            os.environ[ALLOW_PICKLE] = before


def sharded_state(chunks: Sequence[Any], optimizer: Any | None, *, loading: bool) -> dict[str, Any]:
    """Where this rank's tensors lie within the whole checkpoint."""
    # Megatron writes a process group of the present layout into the dictionary that it is given.
    content = dict(CONTENT)
    state: dict[str, Any] = {
        "model": {
            number: chunk.module.sharded_state_dict(metadata=content)
            for number, chunk in enumerate(chunks)
        }
    }
    if optimizer is not None:
        state["optimizer"] = optimizer.sharded_state(
            state["model"], loading=loading, metadata=content
        )
    return state


def _write_and_sum(
    write: Callable[..., None], folder: Path, rank: int, *arguments: Any, **options: Any
) -> None:
    """Write this rank's files and note their checksums; runs in the writing process."""
    # Training has priority over the writing.
    os.nice(5)
    write(*arguments, **options)
    # `write` has reported a full disk. Missing checksums alone can be computed later from the
    # files.
    with suppress(OSError):
        note_checksums(folder, rank, sorted(folder.glob(f"__{rank}_*.distcp")))
