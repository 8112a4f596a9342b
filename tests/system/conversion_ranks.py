"""Run by torchrun from test_conversion.py: what Megatron itself makes of checkpoints, in a given
layout.

usage: conversion_ranks.py JOB.pickle, a dict with `rows` and `cases`: (settings as a dotlist,
converted checkpoint, folder to make). Every rank checks that `converted` gives the real model its
weights; then the policy trains a step on the rows and leaves its checkpoint in the folder, and its
own export in <folder>-run.
"""

import pickle
import sys
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import distributed

from megatron_trace.config import Config
from megatron_trace.policy.policy import Policy


def check(settings: list[str], converted: Path, folder: Path, rows: list) -> None:
    policy = Policy(
        OmegaConf.to_object(
            OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.from_dotlist(settings))
        )
    )
    from megatron.core import dist_checkpointing

    model = policy._chunks[0].module
    right = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.detach().fill_(float("nan"))
    state = dist_checkpointing.load({"model": model.sharded_state_dict()}, str(converted))
    model.load_state_dict(state["model"])
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, right[name]), f"{folder.name}: {name}"
    policy.update(rows)
    if distributed.get_rank() == 0:
        folder.mkdir()
    distributed.barrier()
    policy.begin_checkpoint(folder)
    assert policy.finish_checkpoint(wait=True) == ""
    policy.save_hf(folder.with_name(f"{folder.name}-run"))


if __name__ == "__main__":
    job = pickle.loads(Path(sys.argv[1]).read_bytes())
    for settings, converted, folder in job["cases"]:
        check(settings, converted, folder, job["rows"])
    distributed.destroy_process_group()
