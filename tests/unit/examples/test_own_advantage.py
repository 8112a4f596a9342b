"""The estimator of examples/advantage runs from its file, by its name alone."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from megatron_trace.config import AdvantageConfig, SettingError
from megatron_trace.learning import make_estimator, rows_from_tree
from megatron_trace.tree import ROOT, RolloutTree
from tests.unit.learning.advantages.small_tree import small_tree
from tests.unit.trees import grown_trees

FILE = Path(__file__).parents[3] / "examples/advantage/lambda_contrast.py"


def with_decay(decay: float) -> AdvantageConfig:
    return AdvantageConfig(name=str(FILE), options={"lambda_contrast": {"decay": decay}})


def test_it_is_one_file_of_at_most_forty_lines() -> None:
    assert len(FILE.read_text().splitlines()) <= 40


@given(tree=grown_trees())
def test_every_turn_has_a_finite_advantage_and_the_root_none(tree: RolloutTree) -> None:
    advantages = make_estimator(with_decay(0.7))(tree)
    assert advantages.shape == (len(tree.turns),) and np.isfinite(advantages).all()
    assert advantages[ROOT] == 0.0


def test_lambda_0_compares_with_the_turn_before_and_lambda_1_with_all() -> None:
    tree = small_tree()
    # Success below: root 2/4, turn 1 2/3, turn 2 1.
    assert make_estimator(with_decay(0.0))(tree)[2] == pytest.approx(1 - 2 / 3)
    assert make_estimator(with_decay(1.0))(tree)[2] == pytest.approx(1 - (2 / 3 + 1 / 2) / 2)


def test_training_rows_are_made_with_it() -> None:
    tree = small_tree()
    advantages = make_estimator(with_decay(0.7))(tree)
    first = rows_from_tree(tree, with_decay(0.7))[0]
    assert first.advantage[first.learn][-1] == np.float32(advantages[tree.leaves()[0]])


def test_its_setting_is_checked_before_anything_starts() -> None:
    with pytest.raises(SettingError, match=r"lambda_contrast.decay = 1.5: must be at least 0 and"):
        make_estimator(with_decay(1.5))
