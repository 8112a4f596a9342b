"""Rollouts: Ray actors with inference engines that sample turns and predict success.

This file imports nothing, and must not: the engine's process imports the package for
`vllm/model.py`, and should load neither Ray's fleet nor the environments with it.
"""
