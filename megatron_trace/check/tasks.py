"""Whether every task can be played: by the environment, and within the limits of a rollout."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from megatron_trace.check.chat import load_codec, load_turns
from megatron_trace.check.plugins import load_map
from megatron_trace.check.reads import environment_reads
from megatron_trace.config import Config, SettingError
from megatron_trace.config.sources import Source, all_sources
from megatron_trace.data.task_set import TaskSet, read_task_set
from megatron_trace.data.tasks import Task
from megatron_trace.envs import Environment, make_environments
from megatron_trace.envs.awaiting import settled
from megatron_trace.envs.results import BadResult, checked_messages, checked_snapshot
from megatron_trace.files.problems import BadData, first_of
from megatron_trace.files.remote import shown
from megatron_trace.rollout.episode import described
from megatron_trace.rollout.turns import Turns

Share = Callable[[Callable[[Sequence[Any]], list[Any]], Sequence[Any]], list[Any]]
"""Gives parts of a sequence to a function that returns a result for each item; puts them together.
"""

SHARED_FROM = 10_000
"""From how many tasks on the check is shared. With fewer, it costs more to load the environment on
every rank than it saves.
"""

SKIP = "skip"
"""Value of `data.on_bad`."""

FOREIGN = (Exception, SystemExit)
"""What an environment may raise. SystemExit would end the program without any message."""


def check_data(config: Config) -> list[str]:
    """Read all tasks and check them, as a run does.

    Returns:
        A line for every source of which something was left out.

    Raises:
        SettingError: see `read_tasks` and `check_tasks`.
    """
    sets = [read_tasks(config, source) for source in all_sources(config.data)]
    check_tasks(config, sets)
    return [line for line in map(skipped, sets) if line]


def read_tasks(config: Config, source: Source) -> TaskSet:
    """The tasks of a source.

    Raises:
        SettingError: they cannot be read, or the function that makes them cannot be found.
    """
    try:
        one = read_task_set(source.setting, source.files, load_map(source), source.prefix)
    except (FileNotFoundError, BadData) as error:
        raise SettingError(source.setting, shown(source.files), str(error)) from None
    refuse_or_skip(config, one)
    return one


def alone(function: Callable[[Sequence[Any]], list[Any]], items: Sequence[Any]) -> list[Any]:
    """Does all work in this process; `SharedWork.map` shares it with the other train ranks."""
    return function(items)


def check_tasks(config: Config, sets: Sequence[TaskSet], share: Share = alone) -> None:
    """Begin an episode of every task, as a worker would, and leave out what cannot be played.

    The environment is loaded for this, and the model's tokenizer. Nothing of both is kept.

    Args:
        share: begins the episodes of many tasks.

    Raises:
        SettingError: the environment or the tokenizer cannot be loaded, or a task cannot be played
            and `data.on_bad` is error.
    """
    # It would otherwise be told only when the model has been loaded.
    environment_reads(config)
    tasks = [task for one in sets for task in one.tasks]
    check = share if len(tasks) >= SHARED_FROM else alone
    problems = iter(check(partial(task_problems, config), tasks))
    for one in sets:
        usable = []
        for row in one.rows:
            if problem := next(problems):
                one.leave_out(row, problem)
            else:
                usable.append(row)
        one.rows = usable
        refuse_or_skip(config, one)


def task_problems(config: Config, tasks: Sequence[Task]) -> list[str]:
    """Why each task cannot be played, or "".

    Raises:
        SettingError: the environment or the tokenizer cannot be loaded.
    """
    new_episode, codec = load_environment(config), load_codec(config)
    turns = load_turns(config, codec, new_episode())
    longest = config.rollout.max_history_tokens
    return [task_problem(new_episode, turns, task, longest) for task in tasks]


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
        raise SettingError(one.setting, shown(one.pattern), remedy)
    if not one.rows:
        raise SettingError(one.setting, shown(one.pattern), f"no task can be used: {first}")


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
        new_episode = make_environments(config.environment)
        # A tool without a schema, for example, is noticed only here.
        new_episode()
        return new_episode
    except SettingError:
        raise
    except BadData as error:
        remedy = f"cannot be loaded: {error}"
    except FOREIGN as error:
        remedy = f"cannot be loaded: {described(error)}"
    raise SettingError("environment.name", config.environment.name, remedy)


def task_problem(
    new_episode: Callable[[], Environment],
    turns: Turns,
    task: Mapping[str, Any],
    longest: int,
) -> str:
    """Why a task cannot be played, or "".

    Args:
        new_episode: makes an episode.
        longest: most tokens of a rollout, prompt included.
    """
    try:
        episode = new_episode()
        episode.check_task(task)
    except ValueError as error:
        return str(error)
    except FOREIGN as error:
        return f"check_task fails: {described(error)}"
    try:
        messages = checked_messages(settled(episode.reset(task)))
        checked_snapshot(episode.snapshot())
    except BadResult as error:
        return str(error)
    except FOREIGN as error:
        return f"no episode can begin: {described(error)}"
    try:
        tokens = len(turns.prompt_ids(messages, episode.tools))
    except Exception as error:
        return f"its prompt has no token ids: {described(error)}"
    if tokens >= longest:
        return (
            f"its prompt of {tokens} tokens leaves no room for a turn within "
            f"rollout.max_history_tokens = {longest}"
        )
    return ""
