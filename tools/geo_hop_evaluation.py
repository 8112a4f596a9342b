"""The success of a GeoHop policy on the held-out tasks, sampled with vLLM. Used by
make_start_policy.py.
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloning_tokenizer import prompt_ids
from geo_hop_demonstrator import geo_hop_episodes

from megatron_trace.data.tasks import Task, load_tasks
from megatron_trace.envs.builtin.search_qa import SearchQA
from megatron_trace.models.predictor import FILE

MAX_ACTION_TOKENS = 64


@dataclass
class Samples:
    """One sampled episode of each task.

    Attributes:
        rewards: of each task.
        malformed: episodes that a malformed action ended.
        lengths: tokens of every prompt, action and observation.
        histories: tokens of every whole episode.
    """

    rewards: list[float]
    malformed: int = 0
    lengths: dict[str, list[int]] = field(default_factory=dict)
    histories: list[int] = field(default_factory=list)


def evaluate(folder: Path, data: Path, seed: int, max_turns: int) -> dict[str, Any]:
    """Sample every held-out task once at temperature 1: success by hops, and lengths in tokens."""
    tasks = load_tasks(str(data / "heldout_*-*.tar"))
    with without_predictor(folder) as policy:
        return summary(tasks, sample(policy, data, tasks, seed, max_turns))


@contextmanager
def without_predictor(folder: Path) -> Iterator[Path]:
    """The HF folder `folder` without the predictor, while the context is open."""
    # vLLM's own model loads every *.safetensors of a folder and refuses parameters that it does not
    # have.
    with tempfile.TemporaryDirectory() as name:
        for file in folder.iterdir():
            if file.name != FILE:
                (Path(name) / file.name).symlink_to(file.resolve())
        yield Path(name)


@contextmanager
def without_llvmlite() -> Iterator[None]:
    """While the context is open llvmlite, which the retriever has loaded, is not to be found."""
    # At its start vLLM 0.32 looks into all that is loaded, and asks every object for its `__dict__`.
    # llvmlite's library answers every name with a function, which ends the start.
    hidden = {name: module for name, module in sys.modules.items() if "llvmlite" in name}
    for name in hidden:
        del sys.modules[name]
    try:
        yield
    finally:
        sys.modules |= hidden


def sample(folder: Path, data: Path, tasks: Sequence[Task], seed: int, max_turns: int) -> Samples:
    """One episode of each task, all in parallel turn by turn."""
    # vLLM reads these when it is imported.
    os.environ |= {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "HF_HUB_OFFLINE": "1",
    }
    from vllm import LLM, SamplingParams, TokensPrompt

    with without_llvmlite():
        llm = LLM(
            str(folder),
            dtype="float32",
            enforce_eager=True,
            max_num_seqs=128,
            seed=seed,
        )
    tokenizer = llm.get_tokenizer()
    sampling = SamplingParams(
        max_tokens=MAX_ACTION_TOKENS, stop=list(SearchQA.stop), include_stop_str_in_output=True
    )
    make = geo_hop_episodes(data, max_turns)
    episodes = [make() for _ in tasks]
    histories = []
    for episode, task in zip(episodes, tasks, strict=True):
        question = episode.reset(task)[0]["content"]
        histories.append(prompt_ids(tokenizer, question))
    samples = Samples(rewards=[0.0] * len(tasks))
    samples.lengths = {"prompt": list(map(len, histories)), "action": [], "observation": []}
    # All unfinished episodes take a turn together, so that vLLM has a large batch in every call.
    live = list(range(len(tasks)))
    while live:
        prompts = [TokensPrompt(prompt_token_ids=histories[n]) for n in live]
        outputs = llm.generate(prompts, sampling, use_tqdm=False)
        unfinished = []
        for n, output in zip(live, outputs, strict=True):
            action = output.outputs[0]
            result = episodes[n].step(action.text)
            observation = tokenizer.encode(result.observation, add_special_tokens=False)
            histories[n] += [*action.token_ids, *observation]
            samples.lengths["action"].append(len(action.token_ids))
            samples.rewards[n] = result.reward
            samples.malformed += result.malformed
            if not result.done:
                samples.lengths["observation"].append(len(observation))
                unfinished.append(n)
        live = unfinished
    samples.histories = list(map(len, histories))
    return samples


def summary(tasks: Sequence[Task], samples: Samples) -> dict[str, Any]:
    """Success by hops and over all hops, the share of malformed episodes, and lengths in tokens."""
    success = {}
    for hops in sorted({task["hops"] for task in tasks}):
        pairs = zip(samples.rewards, tasks, strict=True)
        success[str(hops)] = mean([reward for reward, task in pairs if task["hops"] == hops], 3)
    lengths = samples.lengths
    longest = {name: max(values) for name, values in lengths.items()}
    return {
        "success_by_hops": success,
        "success": mean(list(success.values()), 3),
        "malformed": round(samples.malformed / len(tasks), 3),
        "mean_tokens": {name: mean(values, 1) for name, values in lengths.items()},
        "max_tokens": longest | {"rollout": max(samples.histories)},
        "mean_rollout_tokens": mean(samples.histories, 1),
        "rollouts": len(tasks),
    }


def mean(values: Sequence[float], digits: int) -> float:
    """The mean, rounded to `digits` decimals."""
    return round(sum(values) / len(values), digits)
