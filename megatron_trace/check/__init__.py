"""Checks of settings that stand for themselves: each function refuses what cannot work, with the reason."""

from megatron_trace.check.error import SettingError

__all__ = ["SettingError"]
