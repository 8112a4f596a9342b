"""The settings of sampling: tasks, environment, allocation, the fleet."""

from dataclasses import dataclass
from typing import Any

from megatron_trace.config.choices import BudgetUnit, Thoughts, WeightBackend
from megatron_trace.config.setting import setting


@dataclass
class DataConfig:
    """Tasks."""

    # Files, or name -> files, or name -> {files, weight, map}: `sources.py` reads it.
    train: Any = setting(
        "",
        "training tasks: .tar (WebDataset), .jsonl, .jsonl.gz, .json or .parquet files, or a folder "
        "that the package datasets saved (path, glob, brace pattern or URL); or name -> {files, "
        "weight, map} of several sources, from which tasks are drawn in proportion to the weights",
        files=True,
    )
    heldout: dict[str, Any] = setting(
        {},
        "name -> files of each held-out set, of the same kinds, or name -> {files, map}",
        files=True,
    )
    map: str | None = setting(
        None,
        "FILE.py:FUNCTION that makes a task of a row: it takes and returns a dict, or None to leave "
        "the row out; null: rows are tasks. A source or a held-out set may name its own",
    )
    on_bad: str = setting(
        "error",
        "tasks that cannot be read or played: error (the run does not start) or skip (they are "
        "left out and counted)",
        one_of=("error", "skip"),
    )


@dataclass
class EnvironmentConfig:
    """The environment in which the agent acts."""

    name: str = setting(
        "search_qa", "environment of the tasks: a file of megatron_trace/envs/builtin, or FILE.py"
    )
    max_turns: int = setting(
        6, "largest number of turns; an episode without an answer by then fails", at_least=1
    )
    options: dict[str, Any] = setting(
        {},
        "environment -> options of that environment (environment.options.search_qa.top_k=1)",
    )
    chat_template: dict[str, Any] = setting(
        {},
        "what the model's chat template is given, such as {enable_thinking: false} for Qwen3",
    )
    renderer: str = setting(
        "auto",
        "rules by which a chat's messages become token ids: a family of the package renderers "
        "(qwen3, llama-3, ...); template: the model's chat template; auto: the family that writes "
        "what the template writes, else the template",
    )
    thoughts: Thoughts = setting(
        Thoughts.keep,
        "what later prompts of a chat have of a turn's thought (<think> … </think>): keep all of it "
        "or strip it; stripped, a rollout is several sequences for the trainer",
    )
    step_timeout_s: float | None = setting(
        600.0,
        "seconds that a step of the environment may take, or its reset; then the rollout fails; "
        "null: no limit",
        above=0,
    )
    task_timeout_s: float | None = setting(
        None,
        "seconds that the reset and all steps of a rollout may take together, without sampling; then "
        "the rollout fails; null: no limit",
        above=0,
    )
    calls: int = setting(
        32,
        "most resets and steps that run at the same time in a worker, each in a thread",
        at_least=1,
    )
    retries: int = setting(
        2,
        "how often a step is tried again after an error that the environment calls retryable",
        at_least=0,
    )


@dataclass
class AllocationConfig:
    """How a step's sampling budget is spent on anchors."""

    strategy: str = setting(
        "trace",
        "allocation strategy: a file of megatron_trace/allocation/strategies, or FILE.py",
    )
    unit: BudgetUnit = setting(
        BudgetUnit.rollouts,
        "what the budget counts: rollouts (a continuation is one) or sampled tokens",
    )
    budget: int = setting(256, "a step's sampling budget, in allocation.unit", at_least=1)
    expected_tokens: int = setting(
        256,
        "expected sampled tokens of a rollout, used until the first rollout has ended (unit "
        "tokens)",
        at_least=1,
    )
    pool: int = setting(
        128, "candidate tasks per step, for strategies that choose among tasks", at_least=1
    )
    group: int = setting(
        8,
        "rollouts of a task, continuations included, for strategies that treat all tasks alike",
        at_least=1,
    )
    bare_share: float | None = setting(
        None,
        "share of the budget for bare rollouts, the rest is for continuations (strategies that "
        "branch, but trace, which decides by its beliefs); null: the strategy's own",
        above=0,
        at_most=1,
    )
    calibrate: bool = setting(
        True,
        "for the allocation, fit a temperature and a shift of the predictions to the last steps' "
        "outcomes (trace fits its beliefs in any case)",
    )
    prior_rollouts: float = setting(
        0.0,
        "pseudo-count of the running mean success rate: predictions are shrunk towards it until "
        "that many outcomes "
        "have been seen",
        at_least=0,
    )
    merge: bool = setting(
        False,
        "rollouts of a task with the same actions and observations so far share these turns: the "
        "strategy sees one anchor, and what all of them tell about it",
    )
    options: dict[str, Any] = setting(
        {},
        "strategy -> options of that strategy (allocation.options.trace.probe=4)",
    )


@dataclass
class RolloutConfig:
    """The fleet: vLLM engines in Ray actors."""

    workers: int = setting(1, "Ray actors; each has one vLLM engine", at_least=1)
    tensor_parallel: int = setting(1, "tensor-parallel size of one engine", at_least=1)
    # vLLM samples at 0.01 where it is asked for less, and the trainer would not know.
    temperature: float = setting(1.0, "sampling temperature", at_least=0.01)
    max_turn_tokens: int = setting(512, "most sampled tokens of one turn", at_least=1)
    max_history_tokens: int = setting(
        8192, "most tokens of a whole rollout, prompt included", at_least=1
    )
    concurrency: int = setting(256, "live rollouts per engine", at_least=1)
    memory: float = setting(
        0.85, "share of the GPU's memory that an engine may use", above=0, at_most=1
    )
    cpu_cache_gib: int = setting(2, "key-value cache of an engine on the CPU, in GiB", at_least=1)
    block_size: int | None = setting(
        None,
        "tokens of a cache block, a multiple of 16; only whole blocks are served from the cache; "
        "null: the smallest that costs no speed",
        at_least=16,
    )
    eager: bool = setting(False, "no graph capture in vLLM")
    weight_backend: WeightBackend = setting(
        WeightBackend.nccl, "ray: through the object store; nccl: GPU to GPU"
    )
    max_restarts: int = setting(3, "restarts of one worker before the run stops", at_least=0)
    ray_address: str | None = setting(None, "Ray cluster to join; null: start one on this machine")
