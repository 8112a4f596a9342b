"""Whether text becomes token ids: the start policy's tokenizer, and its chat template with what it is
given.
"""

import re

from megatron_trace.config import Config, SettingError
from megatron_trace.envs import Environment
from megatron_trace.models import chat
from megatron_trace.models.chat import TextCodec
from megatron_trace.models.thoughts import NoThoughts
from megatron_trace.rollout.episode import described
from megatron_trace.rollout.turns import Turns, make_turns


def load_codec(config: Config) -> TextCodec:
    """The start policy's tokenizer and chat template, as a worker uses them.

    Raises:
        SettingError: they cannot be used, or the template does not read something in
            `environment.chat_template`.
    """
    options = config.environment.chat_template
    try:
        codec = chat.load_codec(config.model.path, options)
        template = codec.tokenizer.get_chat_template()
    except Exception as error:
        remedy = f"its tokenizer or chat template cannot be used: {described(error)}"
        raise SettingError("model.path", config.model.path, remedy) from None
    for name, value in options.items():
        # The template would ignore it.
        if not re.search(rf"\b{re.escape(name)}\b", template):
            remedy = "the model's chat template reads nothing of this name; correct or remove it"
            raise SettingError(f"environment.chat_template.{name}", value, remedy)
    return codec


def load_turns(config: Config, codec: TextCodec, environment: Environment) -> Turns:
    """How the environment's turns are written for this model.

    Raises:
        SettingError: `environment.renderer` does not fit the model, or its thoughts cannot be
            stripped.
    """
    renderer, thoughts = config.environment.renderer, config.environment.thoughts
    try:
        return make_turns(codec, environment.chat, environment.stop, renderer, thoughts)
    except NoThoughts as error:
        raise SettingError("environment.thoughts", thoughts.value, str(error)) from None
    except ValueError as error:
        raise SettingError("environment.renderer", renderer, str(error)) from None
