"""What a strategy is that learns nothing of its own from step to step."""

from typing import Any


class Stateless:
    """Has nothing to keep in a checkpoint."""

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
