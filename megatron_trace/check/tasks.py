"""Whether every task can be played: by the environment, and within the limits of a rollout."""

import json
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from megatron_trace.config import Config, SettingError
from megatron_trace.data.task_set import TaskSet
from megatron_trace.envs import Environment, make_environments
from megatron_trace.files.problems import BadData, first_of
from megatron_trace.models.chat import prompt_ids
from megatron_trace.models.folders import hf_assets_dir

SKIP = "skip"
"""Value of `data.on_bad`."""


def check_tasks(config: Config, sets: Iterable[TaskSet]) -> None:
    """Begin an episode of every task, as a worker would, and leave out what cannot be played.

    The environment is loaded for this, and the model's tokenizer. Nothing of both is kept.

    Raises:
        SettingError: the environment or the tokenizer cannot be loaded, or a task cannot be played
            and `data.on_bad` is error.
    """
    new_episode, tokenizer = load_environment(config), load_tokenizer(config)
    longest = config.rollout.max_history_tokens
    for one in sets:
        usable = []
        for row in one.rows:
            if problem := task_problem(new_episode(), tokenizer, row.content, longest):
                one.leave_out(row, problem)
            else:
                usable.append(row)
        one.rows = usable
        refuse_or_skip(config, one)


def refuse_or_skip(config: Config, one: TaskSet) -> None:
    """Refuse a set of which something cannot be used, unless that shall be skipped.

    Raises:
        SettingError: something cannot be used and `data.on_bad` is error, or no task is left.
    """
    if not one.problems:
        return
    first = first_of(one.problems)
    if config.data.on_bad != SKIP:
        remedy = f"{first}; correct it, or leave it out with data.on_bad={SKIP}"
        raise SettingError(one.setting, one.pattern, remedy)
    if not one.rows:
        raise SettingError(one.setting, one.pattern, f"no task can be used: {first}")


def skipped(one: TaskSet) -> str:
    """What was left out of a set, as an event; "" where nothing was."""
    count = len(one.problems)
    return f"{one.setting}: {count} skipped: {first_of(one.problems)}" if count else ""


def load_environment(config: Config) -> Callable[[], Environment]:
    """The maker of episodes, as a worker gets it.

    Raises:
        SettingError: the environment cannot be loaded.
    """
    try:
        return make_environments(config.environment)
    except SettingError:
        raise
    except BadData as error:
        remedy = f"cannot be loaded: {error}"
    except Exception as error:
        remedy = f"cannot be loaded: {described(error)}"
    raise SettingError("environment.name", config.environment.name, remedy)


def load_tokenizer(config: Config) -> Any:
    """The start policy's tokenizer.

    Raises:
        SettingError: it cannot be loaded.
    """
    # It takes seconds, so only where tasks are checked.
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(hf_assets_dir(Path(config.model.path)))
    except Exception as error:
        remedy = f"its tokenizer cannot be loaded: {described(error)}"
        raise SettingError("model.path", config.model.path, remedy) from None


def task_problem(
    episode: Environment, tokenizer: Any, task: Mapping[str, Any], longest: int
) -> str:
    """Why a task cannot be played, or "".

    Args:
        episode: a new one.
        longest: most tokens of a rollout, prompt included.
    """
    # A plug-in may raise anything; whatever it is, it would end a worker's call later.
    try:
        episode.check_task(task)
    except ValueError as error:
        return str(error)
    except Exception as error:
        return f"check_task fails: {described(error)}"
    try:
        messages = episode.reset(task)
        json.dumps(episode.snapshot())
    except Exception as error:
        return f"no episode can begin: {described(error)}"
    if not messages or not all(_is_message(message) for message in messages):
        return f"its prompt must be messages with role and content, both text, not {messages!r}"
    try:
        tokens = len(prompt_ids(tokenizer, messages))
    except Exception as error:
        return f"its prompt has no token ids: {described(error)}"
    if tokens >= longest:
        return (
            f"its prompt of {tokens} tokens leaves no room for a turn within "
            f"rollout.max_history_tokens = {longest}"
        )
    return ""


def _is_message(message: Any) -> bool:
    if not isinstance(message, Mapping):
        return False
    return isinstance(message.get("role"), str) and isinstance(message.get("content"), str)


def described(error: Exception) -> str:
    """An exception of foreign code in one line, with the place where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    text = " ".join(str(error).split())
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{place}"
