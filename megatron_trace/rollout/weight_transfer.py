"""Weights through Ray's object store, by vLLM's own weight-transfer interface.

The driver puts a version's tensors into the store once (`put_weights`). Every worker maps the chunks without a copy
and hands them to its engine (`send_to_engine`), where `RayWeightTransferEngine` loads them by vLLM's layerwise
reload. Sender and receiver fingerprint what they hold; the caller compares.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
    WeightTransferUpdateRequest,
)

from megatron_trace.rollout.weights import Chunk, WeightUpdate

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM


@dataclass
class RayInitInfo(WeightTransferInitInfo):
    """Nothing needs to be agreed on beforehand."""


@dataclass
class RayUpdateInfo(WeightTransferUpdateInfo):
    """A chunk: tensor i has `names[i]`, `dtypes[i]` (torch's name), `shapes[i]` and the bytes `data[i]`."""

    names: list[str]
    dtypes: list[str]
    shapes: list[list[int]]
    data: list[bytes]


class RayWeightTransferEngine(WeightTransferEngine[RayInitInfo, RayUpdateInfo]):
    """The receiving side, in vLLM's worker process; registered as backend `ray`."""

    init_info_cls = RayInitInfo
    update_info_cls = RayUpdateInfo

    def init_transfer_engine(self, init_info: RayInitInfo) -> None:
        """Nothing to set up."""

    def start_weight_update(self) -> None:
        """Make the layers ready to be loaded anew."""
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: RayUpdateInfo) -> None:
        """Load one chunk."""
        self.model.load_weights(
            (name, _tensor(dtype, shape, data).to(self.device))
            for name, dtype, shape, data in zip(
                update_info.names, update_info.dtypes, update_info.shapes, update_info.data, strict=True
            )
        )

    def finish_weight_update(self) -> None:
        """Process what the layers hold back until the last chunk."""
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """Nothing to release."""


def _tensor(dtype: str, shape: list[int], data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=getattr(torch, dtype)).reshape(shape)


async def take_fingerprint(engine: "AsyncLLM") -> int:
    """Fingerprint of all weights that `engine` has loaded since the last call.

    Raises:
        RuntimeError: the engine's tensor-parallel ranks received different weights.
    """
    received = set(await engine.collective_rpc("take_fingerprint"))
    if len(received) > 1:
        raise RuntimeError("the ranks of one engine received different weights")
    return received.pop()


async def send_to_engine(engine: "AsyncLLM", update: WeightUpdate) -> int:
    """Load `update` into `engine`, chunk by chunk; returns the fingerprint of what it received.

    Raises:
        RuntimeError: the engine does not hold what was sent.
    """
    await take_fingerprint(engine)
    await engine.start_weight_update()
    for reference in update.chunks:
        chunk: Chunk = await reference
        info = {**vars(chunk), "data": [array.tobytes() for array in chunk.data]}
        await engine.update_weights(WeightTransferUpdateRequest(update_info=info))
    await engine.finish_weight_update(weight_version=str(update.version))
    received = await take_fingerprint(engine)
    if received != update.fingerprint:
        raise RuntimeError(
            f"weights of version {update.version} changed on the way: fingerprint {received:x}, "
            f"sent {update.fingerprint:x}"
        )
    return received
