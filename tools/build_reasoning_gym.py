"""Build tasks of `math_python` from families of reasoning-gym, as shards, without a download.

    pip install --no-deps -r requirements-reasoning-gym.txt
    python tools/build_reasoning_gym.py --families gcd leg_counting:4000 simple_equations \\
        --out data/reasoning_gym --seed 0

A family may name its own size, and `--set chain_sum.max_digits=2` makes its tasks easier or harder.
No question is there twice, and none is both trained on and held out. A family scores an answer by
its own rules, in `math_python`. An entry whose own answer its family does not take, once it is JSON,
is left out. The same seed gives the same bytes.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

from megatron_trace.data.tasks import write_shards
from megatron_trace.envs.reasoning_gym_tasks import check_family, score

Task = dict[str, Any]


def entries(
    family: str, size: int, seed: int, settings: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Entries of a family, as JSON keeps them; fewer than `size` where questions recur.

    Args:
        settings: of the family, such as `max_digits`; what is not there has its default.
    """
    import reasoning_gym

    # It makes entry n from seed + n: neighbouring seeds would give nearly the same entries.
    own_seed = random.Random(f"{seed}/{family}").getrandbits(31)
    asked = set()
    for entry in reasoning_gym.create_dataset(family, size=size, seed=own_seed, **settings):
        kept = json.loads(json.dumps(entry, default=str))
        if kept["question"] in asked or kept["answer"] is None:
            continue
        asked.add(kept["question"])
        # Some metadata are no longer what they were, such as tuples as keys.
        if score(str(kept["answer"]), {**kept, "family": family}) == 1.0:
            yield kept


def tasks_of(family: str, name: str, kept: Iterable[dict[str, Any]]) -> list[Task]:
    """Tasks of a family's entries; `name` is `train` or `heldout`."""
    tasks = []
    for number, entry in enumerate(kept):
        id = f"reasoning_gym/{name}/{family}/{number:05d}"
        own = {"family": family, **entry}
        tasks.append({"id": id, "question": entry["question"].strip(), "reasoning_gym": own})
    return tasks


def build(args: argparse.Namespace) -> None:
    """Write `train-*.tar`, and `heldout_FAMILY-*.tar` for every family; say how many there are.

    Raises:
        SystemExit: a family gives no task.
    """
    train: list[Task] = []
    for family, size in args.families:
        own = args.settings.get(family, {})
        drawn = entries(family, args.heldout + size, args.seed, own)
        heldout = tasks_of(family, "heldout", islice(drawn, args.heldout))
        rest = tasks_of(family, "train", drawn)
        if not rest:
            sys.exit(f"error: {family}: no entry has an answer that can be kept as JSON")
        print(f"{family}: {len(rest)} to train on, {len(heldout)} held out")
        write_shards(heldout, str(args.out / f"heldout_{family}-%06d.tar"))
        train += rest
    write_shards(train, str(args.out / "train-%06d.tar"))


def sized(text: str, size: int) -> tuple[str, int]:
    """NAME or NAME:SIZE.

    Raises:
        ValueError: no such family, one that evaluates answers, or no size.
    """
    family, _, own = text.partition(":")
    check_family(family)
    if own and (not own.isdecimal() or int(own) < 1):
        raise ValueError(f"{text}: the size must be a whole number above 0")
    return family, int(own or size)


def settings_of(texts: Iterable[str], families: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Settings of each family, from FAMILY.NAME=VALUE, whose value is JSON.

    Raises:
        ValueError: a text is not of this form, or the family has no such setting or value.
    """
    from reasoning_gym.factory import DATASETS

    settings: dict[str, dict[str, Any]] = {}
    for text in texts:
        place, _, value = text.partition("=")
        family, _, name = place.partition(".")
        if family not in families:
            raise ValueError(f"{text}: must begin with a family of --families")
        known = [field.name for field in fields(DATASETS[family][1])]
        if name not in known:
            raise ValueError(f"{text}: {family} has no {name!r}; it has {', '.join(known)}")
        try:
            settings.setdefault(family, {})[name] = json.loads(value)
        except ValueError:
            raise ValueError(f"{text}: the value must be JSON, such as 2 or true") from None
    for family, own in settings.items():
        # Its config refuses by `assert`.
        try:
            DATASETS[family][1](**own).validate()
        except (AssertionError, TypeError) as error:
            raise ValueError(f"{family} {own}: {error}") from None
    return settings


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", nargs="+", required=True, metavar="NAME[:SIZE]")
    parser.add_argument("--out", type=Path, default=Path("data/reasoning_gym"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=1_000, help="tasks of a family to train on")
    parser.add_argument("--heldout", type=int, default=100, help="held-out tasks of a family")
    parser.add_argument("--set", nargs="+", default=[], metavar="FAMILY.NAME=VALUE")
    args = parser.parse_args(argv)
    for name in ("size", "heldout"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} {getattr(args, name)}: must be at least 1")
    try:
        args.families = [sized(text, args.size) for text in args.families]
    except ValueError as error:
        parser.error(f"--families: {error}")
    try:
        args.settings = settings_of(args.set, [family for family, _ in args.families])
    except ValueError as error:
        parser.error(f"--set {error}")
    return args


if __name__ == "__main__":
    build(parse())
