"""What the settings choose of plug-ins and functions: it exists, and its options can work."""

from megatron_trace.allocation import advantage_settings, make_strategy
from megatron_trace.config import Config, SettingError
from megatron_trace.config.functions import FileFunction, find_function
from megatron_trace.config.sources import Source, all_sources
from megatron_trace.envs import ENVIRONMENTS
from megatron_trace.learning.estimator import make_estimator


def check_strategy(config: Config) -> None:
    """Refuse a strategy that does not exist, or that cannot work with its options and the budget.

    Raises:
        SettingError: at the first setting that is wrong.
    """
    make_strategy(config.allocation)


def check_estimator(config: Config) -> None:
    """Refuse an advantage estimator that does not exist, or that cannot work with its options.

    Raises:
        SettingError: at the first setting that is wrong.
    """
    given = config.learning.advantage
    try:
        make_estimator(advantage_settings(config.allocation, given))
    except SettingError as error:
        if given.name is not None or not str(error).startswith("learning.advantage.name"):
            raise
        # The user has set no estimator: what is wrong is the strategy that brings one.
        remedy = f"its estimator cannot be used: {error}"
        raise SettingError("allocation.strategy", config.allocation.strategy, remedy) from None


TEMPLATE_CALL = (
    "conversation",
    "add_generation_prompt",
    "continue_final_message",
    "tokenize",
    "return_dict",
    "return_tensors",
    "return_assistant_tokens_mask",
)
"""Arguments of transformers' `apply_chat_template` that the program itself chooses."""


def check_environment(config: Config) -> None:
    """Refuse an environment that does not exist, or options that it does not take. Builds nothing.

    Imports the environment with its libraries, which may take seconds.

    Raises:
        SettingError: at the first setting that is wrong.
    """
    ENVIRONMENTS.options(config.environment.name, config.environment.options)
    template = config.environment.chat_template
    for name in template:
        if name in TEMPLATE_CALL:
            remedy = "is chosen by the program; give what the model's chat template reads"
            raise SettingError(f"environment.chat_template.{name}", template[name], remedy)


def load_map(source: Source) -> FileFunction | None:
    """The function that makes tasks of a source's rows; None where the rows are tasks.

    Raises:
        SettingError: it cannot be found, or takes other arguments than a row.
    """
    return None if source.map is None else find_function(source.map_setting, source.map, 1)


def check_maps(config: Config) -> None:
    """Refuse a function of rows that cannot be used.

    Raises:
        SettingError: at the first one; see `load_map`.
    """
    for source in all_sources(config.data):
        load_map(source)
