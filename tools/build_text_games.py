"""Make text games with TextWorld, and tasks that name them.

    python tools/build_text_games.py --out data/text_games --count 200 --heldout 50 --quest 1 2 3

Games differ by their seed; --quest gives the bounds of their quests' lengths in turn. Writes OUT/games/,
OUT/train.jsonl and OUT/heldout.jsonl. A game that exists already is kept, so a build that was
interrupted goes on.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.progress import track

from megatron_trace.files.atomic import write_text


def make_game(folder: Path, seed: int, quest: int, rooms: int, objects: int) -> dict[str, Any]:
    """The task of a game, which is made unless it exists.

    Args:
        quest: most commands that it takes; `walkthrough` tells how many it does.
    """
    import textworld
    from textworld.generator.chaining import QuestGenerationError

    name = f"quest{quest}-rooms{rooms}-objects{objects}-seed{seed}"
    path = folder / f"{name}.z8"
    options = textworld.GameOptions()
    options.seeds, options.nb_rooms, options.nb_objects = seed, rooms, objects
    options.path = str(path)
    if not (path.exists() and path.with_suffix(".json").exists()):
        # Not every world has a quest of a given length.
        for length in range(quest, 0, -1):
            options.quest_length = length
            with suppress(QuestGenerationError):
                textworld.make(options)
                break
    game = textworld.Game.load(str(path.with_suffix(".json")))
    return {
        "id": name,
        "game": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "objective": game.objective,
        "walkthrough": list(game.walkthrough),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Make what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for games and tasks")
    parser.add_argument("--count", type=int, default=200, help="games for training")
    parser.add_argument("--heldout", type=int, default=50, help="games for evaluation")
    parser.add_argument(
        "--quest", type=int, nargs="+", default=[1, 2, 3], help="bounds of quest lengths"
    )
    parser.add_argument("--rooms", type=int, default=3, help="rooms of a game")
    parser.add_argument("--objects", type=int, default=4, help="objects of a game")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first game")
    args = parser.parse_args(argv)
    try:
        import textworld  # noqa: F401
    except ImportError:
        print("error: it needs textworld: pip install textworld", file=sys.stderr)
        return 1
    games = args.out / "games"
    games.mkdir(parents=True, exist_ok=True)
    tasks = []
    for number in track(range(args.count + args.heldout), "games"):
        quest = args.quest[number % len(args.quest)]
        tasks.append(make_game(games, args.seed + number, quest, args.rooms, args.objects))
    for name, some in (("train", tasks[: args.count]), ("heldout", tasks[args.count :])):
        path = args.out / f"{name}.jsonl"
        write_text(path, "".join(json.dumps(task) + "\n" for task in some))
        print(f"{path}: {len(some)} tasks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
