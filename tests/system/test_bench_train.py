"""Both sides of tools/bench_train.py take the same train step."""

import pickle
from pathlib import Path

import bench_train
import bench_train_rows
import pytest

MODEL = Path("examples/geo_hop/start_policy")


@pytest.mark.slow
def test_both_sides_compute_the_same_step(tmp_path: Path) -> None:
    file = tmp_path / "rows.pickle"
    file.write_bytes(pickle.dumps(bench_train_rows.made_up_rows(10, vocabulary=2048)))
    sides = bench_train.measure(file, MODEL, "float32", tokens=1024, repeats=1, threads=1)
    ours, plain = sides["trace"].first, sides["transformers"].first
    assert ours["gradient_norm"] == pytest.approx(plain["gradient_norm"], rel=1e-3)
    assert ours["entropy"] == pytest.approx(plain["entropy"], rel=1e-4)
    assert all(len(side.seconds) == 1 and side.rate > 1e9 for side in sides.values())
