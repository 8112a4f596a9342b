"""Megatron-TRACE: tree rollout allocation for reinforcement learning of language-model agents."""
