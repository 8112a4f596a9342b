"""What a check is, and how it passes, fails or is skipped. Needs Python alone."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Check:
    """One line of the result.

    Attributes:
        name: what the line begins with. In small letters, with a _ for each space and without
            commas, it is the name of the function. That takes a `Context` and returns what was
            measured, in one line. It raises `Wrong` or any other error if the check has failed,
            and `Skip` if this machine cannot run it.
        module: file in this folder that defines the function.
        needs: packages without which it is skipped.
        limit_s: seconds after which it has failed.
    """

    name: str
    module: str
    needs: tuple[str, ...] = ()
    limit_s: float = 120.0

    @property
    def function(self) -> str:
        """Name of the function that runs it."""
        return self.name.lower().replace(",", "").replace(" ", "_")


@dataclass(frozen=True)
class Group:
    """Checks that share a process, until one of them fails."""

    name: str
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Context:
    """What a check is given.

    Attributes:
        device: "cuda" or "cpu".
        work: a folder for files, which all checks share.
    """

    device: str
    work: Path


@dataclass(frozen=True)
class Outcome:
    """What became of a check.

    Attributes:
        status: passed, failed or skipped.
        text: what was measured, or why it failed or was skipped.
        details: the traceback, or the end of the log, of a check that failed.
    """

    name: str
    status: str
    text: str
    seconds: float = 0.0
    details: str = ""


class Skip(Exception):
    """This machine cannot run the check; the message says what it lacks."""


class Wrong(Exception):
    """A number is not what it must be; the message has both."""


def require(right: bool, text: str) -> None:
    """Fail the check with `text` unless `right`.

    Raises:
        Wrong: it is not.
    """
    if not right:
        raise Wrong(text)
