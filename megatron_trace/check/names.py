"""Names that users give to sources of tasks and to held-out sets."""

import re

from megatron_trace.config import Config, SettingError
from megatron_trace.config.sources import all_sources
from megatron_trace.files.remote import shown

SOURCE_NAME = re.compile(r"\w([\w .-]*\w)?")
"""Names that every logger takes as a part of a metric's name."""

MEAN = "mean"
"""What metrics call the mean over all held-out sets."""


def check_source_names(config: Config) -> None:
    """Refuse a source of tasks or a held-out set whose name could not stand in the metrics.

    Raises:
        SettingError: at the first such name.
    """
    if MEAN in config.data.heldout:
        remedy = "needs another name; `mean` is the mean over all held-out sets"
        raise SettingError(f"data.heldout.{MEAN}", config.data.heldout[MEAN], remedy)
    for source in all_sources(config.data):
        # `data.train` may name files without a name.
        if source.setting != "data.train" and not SOURCE_NAME.fullmatch(source.name):
            what = "source" if source.setting.startswith("data.train.") else "held-out set"
            remedy = (
                f"the name of a {what} must be letters, digits, `_`, `-`, `.` and spaces, with a "
                "letter or digit at both ends"
            )
            raise SettingError(source.setting, shown(source.files), remedy)
