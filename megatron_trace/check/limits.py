"""Limits that must agree with each other. Bounds of single settings stand beside them."""

from megatron_trace.config import Config, SettingError


def check_limits(config: Config) -> None:
    """Refuse a turn longer than its history, a block size that no engine takes, and a time limit
    shorter than the time to end.

    Raises:
        SettingError: at the first such limit.
    """
    rollout, stop = config.rollout, config.stop
    if rollout.max_turn_tokens > rollout.max_history_tokens:
        remedy = (
            f"must be at most rollout.max_history_tokens ({rollout.max_history_tokens}), "
            "which include the turn"
        )
        raise SettingError("rollout.max_turn_tokens", rollout.max_turn_tokens, remedy)
    if rollout.block_size is not None and rollout.block_size % 16:
        remedy = "must be a multiple of 16"
        raise SettingError("rollout.block_size", rollout.block_size, remedy)
    limit, grace = stop.time_limit_min, stop.grace_s
    if limit is not None and 60 * limit <= grace:
        remedy = f"must be longer than stop.grace_s ({grace:g} s)"
        raise SettingError("stop.time_limit_min", limit, remedy)
