"""What the documents name is there: links, headings, files, settings; and their lines fit a screen."""

import dataclasses
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron_trace.config import Config, flatten

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
WIDTH, CELL = 100, 120
"""Most characters of a line of prose, and of a table's cell."""

LINK = re.compile(r"\]\(([^)\s]+)\)")
QUOTED = re.compile(r"`([^`\n]+)`")
COMMAND = re.compile(r"\b(?:tools|configs|examples|tests)/[\w./-]+\.(?:py|yaml|sh|sbatch)\b")
FILE = re.compile(r"[\w.-]+(/[\w.-]+)+\.(py|md|yaml|sh|sbatch|toml|txt)")
SECTIONS = "|".join(field.name for field in dataclasses.fields(Config))
SETTING = re.compile(rf"(?<![\w./-])(?:{SECTIONS})(?:\.[a-z][a-z0-9_]*)+(?![\w(*/])")

each_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS]
)


@each_document
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    dead = [target for target in _links(document) if not _is_alive(document, target)]
    assert dead == []


@each_document
def test_every_file_that_is_named_exists(document: Path) -> None:
    places = [ROOT, ROOT / "megatron_trace", document.parent]
    named = [name for name in QUOTED.findall(_text(document)) if FILE.fullmatch(name)]
    named += COMMAND.findall(_text(document))
    ours = [name for name in named if not name.startswith(("megatron/", "runs/"))]
    missing = [name for name in ours if not any((place / name).exists() for place in places)]
    assert missing == []


@each_document
def test_every_setting_that_is_named_exists(document: Path) -> None:
    settings = flatten(dataclasses.asdict(Config()))
    shown_error = re.compile(r"^error: .*$", re.MULTILINE)
    named = SETTING.findall(shown_error.sub("", _text(document)))
    assert [name for name in named if not _is_setting(name, settings)] == []


@each_document
def test_no_line_of_prose_is_wider_than_a_screen(document: Path) -> None:
    assert [line for line in _prose(document) if len(line) > WIDTH] == []


@each_document
def test_no_table_cell_holds_a_paragraph(document: Path) -> None:
    rows = [line for line in _text(document).splitlines() if line.startswith("|")]
    cells = [cell.strip() for row in rows for cell in row.split("|")]
    assert [cell for cell in cells if len(cell) > CELL] == []


def test_the_floor_plan_is_that_of_the_import_rules() -> None:
    plan = _text(ROOT / "docs/architecture.md").split("```")[1].splitlines()
    rules = tomllib.loads(_text(ROOT / "pyproject.toml"))["tool"]["importlinter"]["contracts"]
    floors = [layer.replace("megatron_trace.", "").split(" | ") for layer in rules[0]["layers"]]
    assert {room for floor in floors for room in floor} == _rooms()
    for height, rooms in enumerate(reversed(floors), start=1):
        (line,) = [line for line in plan if line.startswith(f" {height} ")]
        assert set(rooms) <= set(re.findall(r"\w+", line))


def test_a_dead_link_and_an_unknown_setting_are_noticed(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text("# One heading\n\n[a](gone.md) [b](page.md#one-heading) [c](#two)\n")
    dead = [target for target in _links(document) if not _is_alive(document, target)]
    assert dead == ["gone.md", "#two"]
    settings = flatten(dataclasses.asdict(Config()))
    assert _is_setting("run.steps", settings) and not _is_setting("run.step", settings)


def _rooms() -> set[str]:
    return {path.parent.name for path in (ROOT / "megatron_trace").glob("*/__init__.py")}


def _text(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def _links(document: Path) -> list[str]:
    targets = LINK.findall(_text(document))
    return [target for target in targets if not target.startswith(("http://", "https://"))]


def _is_alive(document: Path, target: str) -> bool:
    """Whether a link leads to a file or folder and, where it names one, to a heading of that file."""
    path, _, anchor = target.partition("#")
    page = document.parent / path if path else document
    return page.exists() and (not anchor or anchor in _anchors(page))


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    titles = re.findall(r"^#+ +(.+)$", _text(page), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", title.lower()) for title in titles]
    return {title.replace(" ", "-") for title in plain}


def _is_setting(name: str, settings: dict[str, object]) -> bool:
    """Whether `name` is a setting, a section of settings, or an option of a plug-in.

    Options belong to strategies, estimators and environments, which check their names themselves.
    """
    if ".options." in name or name.endswith(".options"):
        return True
    return name in settings or any(known.startswith(f"{name}.") for known in settings)


def _prose(document: Path) -> Iterator[str]:
    """The lines that are wrapped by hand: neither code nor tables nor pictures."""
    code = False
    for line in _text(document).splitlines():
        if line.startswith("```"):
            code = not code
        elif not code and not line.startswith(("|", "![")):
            yield line
