"""Simulated worlds with known success probabilities: what an allocation gains, and why."""

from megatron_trace.simulate.config import WorldConfig
from megatron_trace.simulate.laboratory import measure
from megatron_trace.simulate.policy import SimulatedPolicy, start_policy
from megatron_trace.simulate.sampler import SimulatedSampler
from megatron_trace.simulate.simulation import Simulation
from megatron_trace.simulate.train import train
from megatron_trace.simulate.trees import World
from megatron_trace.simulate.world import make_world

__all__ = [
    "SimulatedPolicy",
    "SimulatedSampler",
    "Simulation",
    "World",
    "WorldConfig",
    "make_world",
    "measure",
    "start_policy",
    "train",
]
