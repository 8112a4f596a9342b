"""Build tasks of `math_python` from families of reasoning-gym, as shards, without a download.

    pip install --no-deps -r requirements-reasoning-gym.txt
    python tools/build_reasoning_gym.py --families gcd leg_counting:4000 simple_equations \\
        --out data/reasoning_gym --seed 0

A family may name its own size. No question is there twice, and none is both trained on and held
out. A family scores an answer by its own rules, in `math_python`. An entry whose own answer its
family does not take, once it is JSON, is left out. The same seed gives the same bytes.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from megatron_trace.data.tasks import write_shards
from megatron_trace.envs.reasoning_gym_tasks import check_family, score

Task = dict[str, Any]


def entries(family: str, size: int, seed: int) -> Iterator[dict[str, Any]]:
    """Entries of a family, as JSON keeps them; fewer than `size` where questions recur."""
    import reasoning_gym

    # It makes entry n from seed + n: neighbouring seeds would give nearly the same entries.
    own_seed = random.Random(f"{seed}/{family}").getrandbits(31)
    asked = set()
    for entry in reasoning_gym.create_dataset(family, size=size, seed=own_seed):
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
        drawn = entries(family, args.heldout + size, args.seed)
        heldout = tasks_of(family, "heldout", islice(drawn, args.heldout))
        own = tasks_of(family, "train", drawn)
        if not own:
            sys.exit(f"error: {family}: no entry has an answer that can be kept as JSON")
        print(f"{family}: {len(own)} to train on, {len(heldout)} held out")
        write_shards(heldout, str(args.out / f"heldout_{family}-%06d.tar"))
        train += own
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
    args = parser.parse_args(argv)
    for name in ("size", "heldout"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} {getattr(args, name)}: must be at least 1")
    try:
        args.families = [sized(text, args.size) for text in args.families]
    except ValueError as error:
        parser.error(f"--families: {error}")
    return args


if __name__ == "__main__":
    build(parse())
