"""Make shards of tasks from published files: JSON lines, Parquet or other shards.

    python tools/build_shards.py --source 'raw/train-*.parquet' --map raw/columns.py:to_task \
        --out data/maths/train-%06d.tar --heldout raw/test.jsonl

Rows with the same content but for their id are written once. Rows that are in the held-out source
too are told: the same content, or the same `question` or `prompt` but for capitals, white space and
punctuation. They are written all the same; the function of --map can leave them out.

Beside the shards: `shards.json` with their checksums, and `manifest.json`, which says of each split
whence it comes.
"""

import argparse
import glob
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from megatron_trace.config import SettingError
from megatron_trace.config.functions import FileFunction, find_function
from megatron_trace.data.task_rows import task_rows
from megatron_trace.data.task_set import with_own_ids
from megatron_trace.data.tasks import Task, write_shards
from megatron_trace.files.atomic import write_text
from megatron_trace.files.json_object import parse
from megatron_trace.files.problems import BadData, refuse
from megatron_trace.files.rows import Row
from megatron_trace.files.shard_list import listed

MANIFEST = "manifest.json"
OUT = re.compile(r"[^%]*%\d*d[^%]*\.tar")

SHOWN = 5
"""Rows of the held-out source that are shown; the manifest has the ids of all."""


def content_of(task: Task) -> str:
    """SHA-256 of the task without its id."""
    rest = {key: one for key, one in task.items() if key != "id"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def asked(task: Task) -> str:
    """The words of `question` or `prompt`, in small letters with single spaces; "" where none."""
    text = task.get("question") or task.get("prompt") or ""
    if isinstance(text, list):
        # Chat messages.
        text = " ".join(str(one.get("content", "")) for one in text if isinstance(one, dict))
    return " ".join(re.findall(r"\w+", str(text).lower()))


def contaminated(rows: Iterable[Row], heldout: Iterable[Row]) -> dict[str, str]:
    """Ids of the rows that are held out too -> where both are."""
    held: dict[str, str] = {}
    for row in heldout:
        held[content_of(row.content)] = row.place
        if words := asked(row.content):
            held.setdefault(words, row.place)
    found = {}
    for row in rows:
        if place := held.get(content_of(row.content)) or held.get(asked(row.content)):
            found[str(row.content["id"])] = f"{row.place} is held out too: {place}"
    return found


def read(pattern: str, to_task: FileFunction | None) -> tuple[list[Row], int]:
    """The first row of each content, with an id of its own, and the number of the others.

    Raises:
        FileNotFoundError: no file matches.
        BadData: something cannot be read or has no id, or nothing is left.
    """
    problems: list[str] = []
    rows = list(task_rows(pattern, problems, to_task))
    distinct: dict[str, Row] = {}
    for row in rows:
        distinct.setdefault(content_of(row.content), row)
    kept = with_own_ids(distinct.values(), problems)
    refuse(problems)
    if not kept:
        raise BadData(f"{pattern}: --map leaves out every row")
    return kept, len(rows) - len(kept)


def known_splits(file: Path) -> dict[str, Any]:
    """The splits in the manifest so far."""
    try:
        return parse(file.read_bytes()) if file.exists() else {}
    except ValueError as error:
        raise BadData(f"{file}: {error}; remove it, or choose another folder") from None


def build(args: argparse.Namespace) -> None:
    """Read, compare, write and tell.

    Raises:
        FileNotFoundError, BadData, SettingError: what is asked for cannot be done.
    """
    manifest = Path(args.out).parent / MANIFEST
    splits = known_splits(manifest)
    to_task = find_function("--map", args.map, 1) if args.map else None
    rows, dropped = read(args.source, to_task)
    held = contaminated(rows, read(args.heldout, to_task)[0]) if args.heldout else {}
    shards = range(-(-len(rows) // args.rows_per_shard))
    # A glob would read shards of a longer, earlier writing with the new ones.
    earlier = set(glob.glob(re.sub(r"%\d*d", "*", args.out)))
    if left := earlier - {args.out % number for number in shards}:
        raise BadData(f"{min(left)} is of an earlier writing; remove it, or choose another --out")
    paths = write_shards([row.content for row in rows], args.out, args.rows_per_shard)
    print(f"{len(rows)} rows in {len(paths)} shards; {dropped} duplicates dropped")
    if args.heldout:
        print(f"{len(held)} rows are in {args.heldout} too", *list(held.values())[:SHOWN], sep="\n")
    checksums = listed(manifest.parent)
    splits[args.split] = {
        "source": args.source, "map": args.map, "heldout": args.heldout, "count": len(rows),
        "duplicates": dropped, "contaminated": list(held),
        "shards": {path.name: checksums[path.name] for path in paths},
    }  # fmt: skip
    write_text(manifest, json.dumps(splits, indent=1, sort_keys=True) + "\n")


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", required=True, help="path, glob or brace pattern of files")
    parser.add_argument("--map", help="FILE.py:FUNCTION, as data.map")
    parser.add_argument("--out", required=True, help="such as data/x/train-%%06d.tar")
    parser.add_argument("--rows-per-shard", type=int, default=10_000)
    parser.add_argument("--split", default="train", help="name of the split in the manifest")
    parser.add_argument("--heldout", help="files whose rows must not be among those of --source")
    args = parser.parse_args()
    if not OUT.fullmatch(args.out):
        parser.error(f"--out {args.out}: must hold one %06d, for the number, and end with .tar")
    if args.rows_per_shard < 1:
        parser.error(f"--rows-per-shard {args.rows_per_shard}: must be at least 1")
    try:
        build(args)
    except (FileNotFoundError, BadData, SettingError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
