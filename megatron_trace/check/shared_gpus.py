"""Whether engines would land on the GPUs of the train ranks."""

from megatron_trace.config import Config, SettingError, WeightBackend


def check_shared_gpus(config: Config) -> None:
    """Refuse engines on the train ranks' GPUs, unless there is only one GPU to share.

    For runs that train and sample: one of both alone may have all GPUs. A Ray that is started here
    gives out the GPUs from the first on, which are the train ranks' as well.

    Raises:
        SettingError: a Ray would be started here, beside several GPUs or with NCCL on one.
    """
    if config.rollout.ray_address is not None:
        return
    import torch

    if not torch.cuda.is_available():
        return
    if (count := torch.cuda.device_count()) > 1:
        remedy = (
            f"would put engines on the train ranks' GPUs ({count} are visible); start Ray for other "
            "GPUs and give its address, or show one GPU only (CUDA_VISIBLE_DEVICES), to train and "
            "sample on (docs/gpu.md)"
        )
        raise SettingError("rollout.ray_address", None, remedy)
    if config.rollout.weight_backend is WeightBackend.nccl:
        remedy = "cannot send from a GPU to itself, and engine and train rank share one; use ray"
        raise SettingError("rollout.weight_backend", config.rollout.weight_backend, remedy)
