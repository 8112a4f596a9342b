"""Rank 0 drives; the other train ranks follow its calls."""

from datetime import timedelta
from typing import Any

from torch import distributed

from megatron_trace.policy.hf import drain
from megatron_trace.policy.policy import Policy

# Rank 0 samples, evaluates and waits for humans between two calls.
PATIENCE = timedelta(days=7)
STOP = "stop"


class LeaderLost(RuntimeError):
    """Rank 0 is gone; it, or torchrun, says why."""


class RankGroup:
    """Makes every train rank call the same method of its `Policy` with rank 0's arguments.

    Build it on all ranks. Rank 0 calls `call` and at the end `stop`; the others call `follow`, which returns
    after that. An exception on any rank ends that process, and with it, through the broken connection or
    torchrun, the others.
    """

    def __init__(self, policy: Policy) -> None:
        """Over the process group that `policy` joined."""
        self.policy = policy
        self.leader = distributed.get_rank() == 0
        # Its own group: waiting here must not time out like a collective of the training.
        self._group = distributed.new_group(backend="gloo", timeout=PATIENCE)

    def call(self, method: str, *arguments: Any) -> Any:
        """Call `method` of every rank's policy and return rank 0's result.

        After "weights" rank 0 must use the returned iterator up before the next call. Only on rank 0.
        """
        if not self.leader:
            raise RuntimeError("only rank 0 calls; the other train ranks follow")
        self._share((method, arguments))
        return getattr(self.policy, method)(*arguments)

    def follow(self) -> None:
        """Do what rank 0 calls until it stops. Not on rank 0.

        Raises:
            LeaderLost: rank 0 ended without a word.
        """
        while True:
            try:
                method, arguments = self._share(None)
            except RuntimeError as error:  # of the connection
                raise LeaderLost(str(error)) from None
            if method == STOP:
                return
            result = getattr(self.policy, method)(*arguments)
            if method == "weights":
                drain(result)

    def stop(self) -> None:
        """Let the followers return. Only on rank 0."""
        self._share((STOP, ()))

    def _share(self, command: tuple[str, tuple[Any, ...]] | None) -> tuple[str, tuple[Any, ...]]:
        box = [command]
        distributed.broadcast_object_list(box, src=0, group=self._group)
        assert box[0] is not None
        return box[0]
