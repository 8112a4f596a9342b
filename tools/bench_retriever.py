"""Time and memory of a BM25 index over made-up passages: in memory, and mapped from the disk.

    python tools/bench_retriever.py --passages 100000 --out /tmp/passages

A passage has 100 words, drawn by Zipf's law from 200,000. A query has 6 words of a passage. Memory is
what the index added to a process, in MiB: `private` is its own, `shared` it has in common with the
other processes, through the page cache.
"""

import argparse
import multiprocessing
import os
import random
import time
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path

from megatron_trace.envs.retrieval.bm25 import SearchIndex
from megatron_trace.envs.retrieval.index_folder import build_index
from megatron_trace.envs.retrieval.passages import Passage

WORDS, LENGTH, QUERIES, QUERY_WORDS = 200_000, 100, 200, 6

Figures = dict[str, float]


def made_up(count: int) -> list[Passage]:
    """Passages of random words; the same in every process."""
    rng = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(3, 9))) for _ in range(WORDS)]
    weights = list(accumulate(1 / (rank + 10) for rank in range(WORDS)))

    def passage() -> Passage:
        text = rng.choices(words, cum_weights=weights, k=LENGTH)
        return Passage(" ".join(rng.choices(words, k=2)), " ".join(text))

    return [passage() for _ in range(count)]


def questions(passages: Sequence[Passage]) -> list[str]:
    """Queries that find something."""
    rng = random.Random(1)
    return [
        " ".join(rng.sample(passage.text.split(), QUERY_WORDS))
        for passage in rng.choices(passages, k=QUERIES)
    ]


def memory_mib() -> Figures:
    """Private and shared memory of this process."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    private = kib["Private_Clean"] + kib["Private_Dirty"]
    return {"private": private / 1024, "shared": (kib["Rss"] - private) / 1024}


def measured(folder: str, passages: list[Passage], queries: list[str], all_open: object) -> Figures:
    """Open the index of `folder`, or index `passages` in memory, and search it."""
    before, begin = memory_mib(), time.monotonic()
    index = SearchIndex.from_folder(folder) if folder else SearchIndex.of_passages(passages)
    found = {"open_s": time.monotonic() - begin}
    begin = time.monotonic()
    for query in queries:
        index.hits(query, 3)
    found["searches_per_s"] = len(queries) / (time.monotonic() - begin)
    # Memory is shared only while several processes have it.
    all_open.wait()  # type: ignore[attr-defined]
    found |= {name: now - before[name] for name, now in memory_mib().items()}
    all_open.wait()  # type: ignore[attr-defined]
    return found


def side_by_side(processes: int, folder: str, count: int, queries: list[str]) -> list[Figures]:
    """`measured` in several processes at the same time."""
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as manager:
        all_open = manager.Barrier(processes)
        task = partial(_in_process, folder, count, queries, all_open)
        with spawn.Pool(processes) as pool:
            found = pool.map(task, range(processes), chunksize=1)
            pool.close()
            pool.join()
        return found


def _in_process(folder: str, count: int, queries: list[str], all_open: object, _: int) -> Figures:
    return measured(folder, [] if folder else made_up(count), queries, all_open)


def main() -> None:
    """Build, open, search, and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=2, help="that map the same folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of the index")
    args = parser.parse_args()
    passages = made_up(args.passages)
    queries = questions(passages)
    begin = time.monotonic()
    build_index(args.out, passages, "made up")
    size = sum(file.stat().st_size for file in args.out.iterdir()) / 2**20
    print(f"built in {time.monotonic() - begin:.1f} s, {size:.0f} MiB on the disk")
    del passages
    for name, folder, processes in (("mapped", str(args.out), args.processes), ("memory", "", 1)):
        for found in side_by_side(processes, folder, args.passages, queries):
            print(f"{name:8}", *(f"{key} {value:,.2f}" for key, value in found.items()), sep="  ")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}")


if __name__ == "__main__":
    main()
