"""Rank 0 drives the training; the other train ranks repeat its calls."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from torch import Tensor, distributed

from megatron_trace.policy.policy import Policy
from megatron_trace.policy.weights import drain

LEADER_TIMEOUT = timedelta(days=7)
"""How long the followers wait for the next call: rank 0 samples, evaluates and waits for humans."""

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

Weights = Iterator[tuple[str, Tensor]]
"""What `Policy.weights` returns."""

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
"""A method of `Policy`, its positional and its keyword arguments."""


class LeaderLost(RuntimeError):
    """Rank 0 is gone. Its own output, or torchrun's, says why."""


class RankGroup:
    """Makes every train rank call the same method of its `Policy` with rank 0's arguments.

    Build it on all ranks. Rank 0 uses `call`, and `stop` at the end. The other ranks use `follow`,
    which returns after `stop`. An exception on any rank ends its process. The broken connection, or
    torchrun, then ends the other ranks.
    """

    def __init__(self, policy: Policy) -> None:
        """Over the process group that `policy` joined."""
        self.policy = policy
        self.leader = distributed.get_rank() == 0
        # A group for the calls alone: the followers wait here for the whole of sampling, which
        # must not run into the timeout of the training's collectives.
        self._group = distributed.new_group(backend="gloo", timeout=LEADER_TIMEOUT)
        self._at_rest = True
        self._weights: Weights = iter(())

    def call(
        self,
        method: Callable[Concatenate[Policy, Parameters], Result],
        *arguments: Parameters.args,
        **named: Parameters.kwargs,
    ) -> Result:
        """Call `method`, such as `Policy.update`, on every rank and return rank 0's result.

        After `Policy.weights` rank 0 must use the returned iterator up before the next call:
        gathering a tensor is collective.

        Raises:
            RuntimeError: this is not rank 0.
        """
        if not self.leader:
            raise RuntimeError("only rank 0 calls; the other train ranks follow")
        self._at_rest = False
        self._broadcast((method, arguments, named))
        try:
            result = method(self.policy, *arguments, **named)
        except OSError:
            # `save_hf` raises it when all ranks are through.
            self._at_rest = method is Policy.save_hf
            raise
        if method is Policy.weights:
            self._weights = self._watched(cast(Weights, result))
            return cast(Result, self._weights)
        self._at_rest = True
        return result

    def _watched(self, weights: Weights) -> Weights:
        yield from weights
        self._at_rest = True

    def come_to_rest(self) -> bool:
        """After an error: let all ranks finish the call under way, if that is possible.

        Returns:
            Whether all ranks wait for the next call. If not, the error came from a call itself, and
            some ranks may wait in a collective for ever.
        """
        # Whoever was sent the weights may have failed, and not the ranks that gather them.
        with suppress(Exception):
            drain(self._weights)
        return self._at_rest

    def follow(self) -> None:
        """Repeat what rank 0 calls until it stops. Not on rank 0.

        Raises:
            LeaderLost: rank 0 died.
        """
        while True:
            try:
                call = self._broadcast(None)
            except RuntimeError as error:  # of the connection
                raise LeaderLost(str(error)) from None
            if call is None:
                return
            method, arguments, named = call
            result = method(self.policy, *arguments, **named)
            # A generator does nothing until it is used, and rank 0 waits in its first gathering.
            if method is Policy.weights:
                drain(result)

    def stop(self) -> None:
        """Let the followers return. Only on rank 0, and only where all ranks are at rest."""
        self._broadcast(None)

    def _broadcast(self, call: Call | None) -> Call | None:
        """Send `call` from rank 0, or receive it. None is the end.

        A method is pickled as the name of its module and its place there, so all ranks must run the
        same code.
        """
        box = [call]
        distributed.broadcast_object_list(box, src=0, group=self._group)
        return box[0]
