"""Names that users give to held-out sets."""

import re

from megatron_trace.config import Config, SettingError

HELDOUT_NAME = re.compile(r"\w([\w .-]*\w)?")
"""Names that every logger takes as a part of a metric's name."""

MEAN = "mean"
"""What metrics call the mean over all held-out sets."""


def check_heldout_names(config: Config) -> None:
    """Refuse a held-out set whose name could not stand in the metrics.

    Raises:
        SettingError: at the first such name.
    """
    for name, pattern in config.data.heldout.items():
        setting = f"data.heldout.{name}"
        if name == MEAN:
            remedy = "needs another name; `mean` is the mean over all held-out sets"
            raise SettingError(setting, pattern, remedy)
        if not HELDOUT_NAME.fullmatch(name):
            remedy = (
                "the name of a held-out set must be letters, digits, `_`, `-`, `.` and spaces, with "
                "a letter or digit at both ends"
            )
            raise SettingError(setting, pattern, remedy)
