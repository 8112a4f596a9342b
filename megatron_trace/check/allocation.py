"""Checks of how the sampling budget is spent."""

from megatron_trace.check.error import SettingError
from megatron_trace.config import AllocationConfig


def check_allocation(settings: AllocationConfig) -> None:
    """Refuse a budget that the strategy cannot spend exactly.

    Raises:
        SettingError: at the first setting that cannot work.
    """
    if settings.strategy not in ("trace", "uniform"):
        raise SettingError("allocation.strategy", settings.strategy, "must be trace or uniform")
    if settings.strategy == "uniform":
        _check_uniform(settings)
    else:
        _check_trace(settings)


def _check_uniform(settings: AllocationConfig) -> None:
    if settings.group < 2:
        raise SettingError(
            "allocation.group", settings.group, "must be at least 2: one rollout has no contrast"
        )
    if settings.budget % settings.group:
        remedy = f"must be a multiple of allocation.group ({settings.group}) so that it is spent exactly"
        raise SettingError("allocation.budget", settings.budget, remedy)


def _check_trace(settings: AllocationConfig) -> None:
    floor, bare = max(2, settings.floor), settings.bare_rollouts
    if bare < floor:
        raise SettingError(
            "allocation.bare_rollouts",
            bare,
            f"is below allocation.floor ({floor}): raise it, or lower the floor",
        )
    if settings.budget < bare:
        remedy = f"must be at least allocation.bare_rollouts ({bare})"
        raise SettingError("allocation.budget", settings.budget, remedy)
    if settings.root_cap is not None and settings.root_cap < floor:
        raise SettingError(
            "allocation.root_cap", settings.root_cap, f"must be at least allocation.floor ({floor})"
        )
    if settings.prefix_cap is not None and settings.prefix_cap < 1:
        raise SettingError(
            "allocation.prefix_cap", settings.prefix_cap, "must be at least 1, or null for no cap"
        )
    fewest = 1 if settings.root_cap is None else -(-bare // settings.root_cap)
    if settings.pool < fewest or fewest * floor > bare:
        remedy = (
            f"{bare} bare rollouts cannot be split over it with floor {floor} and cap {settings.root_cap}"
        )
        raise SettingError("allocation.pool", settings.pool, remedy)
