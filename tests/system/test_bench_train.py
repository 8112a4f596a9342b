"""All sides of tools/bench_train.py take the same train step."""

import pickle
from pathlib import Path

import bench_train
import pytest
from bench_train_trees import like_geo_hop

MODEL = Path("examples/geo_hop/start_policy")


@pytest.mark.slow
def test_all_sides_compute_the_same_step(tmp_path: Path) -> None:
    work = bench_train.work_of(like_geo_hop(2048, trees=2))
    file = tmp_path / "work.pickle"
    file.write_bytes(pickle.dumps({"small": work.rows}))
    bench = bench_train.Bench(file, MODEL, "float32", repeats=1, threads=1)
    with bench.sides(bench_train.SIDES, tokens=1024) as sides:
        steps = bench.steps(sides, "small")
    plain = steps["plain padded"].first
    for side in steps.values():
        assert side.first["gradient_norm"] == pytest.approx(plain["gradient_norm"], rel=1e-3)
        assert side.first["entropy"] == pytest.approx(plain["entropy"], rel=1e-4)
        assert len(side.steps) == 1
