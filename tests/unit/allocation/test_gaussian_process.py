"""The process over prompts against the update it stands for, written out over all prompts."""

import json

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist
from scipy.special import expit, logit

from megatron_trace.allocation.gaussian_process import SuccessProcess


def process(memory=100, dimensions=64):
    return SuccessProcess(memory=memory, dimensions=dimensions)


def test_before_the_first_outcome_every_prompt_has_half() -> None:
    assert list(process().predict(np.zeros((3, 2)))) == [0.5] * 3


def test_it_equals_the_recursion_over_all_prompts() -> None:
    rng = np.random.default_rng(0)
    prompts, n = rng.normal(size=(12, 3)), 8.0
    steps = [
        (rng.choice(12, 4, replace=False), rng.integers(0, 9, 4).astype(float)) for _ in range(5)
    ]
    found = process()
    first, successes = steps[0]
    width = np.median(pdist(prompts[first]))
    kernel = np.exp(-0.5 * cdist(prompts, prompts, "sqeuclidean") / width**2)
    mean = np.full(12, logit((successes.sum() + 0.5) / (4 * n + 1)))
    for chosen, successes in steps:
        found.observe(prompts[chosen], successes, np.full(4, n))
        rate = (successes + 0.5) / (n + 1)
        noisy = kernel[np.ix_(chosen, chosen)] + np.diag(1 / (n * rate * (1 - rate)))
        mean = mean + kernel[:, chosen] @ np.linalg.solve(noisy, logit(rate) - mean[chosen])
    np.testing.assert_allclose(found.predict(prompts), expit(mean), atol=1e-3)


def test_prompts_like_one_that_succeeded_are_predicted_to_succeed() -> None:
    found = process()
    found.observe([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]], [8, 8, 8, 0, 0, 0], [8] * 6)
    easy, hard = found.predict([[0.5], [11.5]])
    assert easy > 0.7 and hard < 0.3


def test_far_from_all_prompts_it_says_the_mean_success() -> None:
    found = process()
    found.observe([[0.0], [1.0]], [2.0, 4.0], [8, 8])
    assert found.predict([[1e6]])[0] == pytest.approx(6.5 / 17)


def test_more_rollouts_are_believed_more() -> None:
    few, many = process(), process()
    few.observe([[0.0], [1.0]], [2.0, 1.0], [2, 2])
    many.observe([[0.0], [1.0]], [32.0, 16.0], [32, 32])
    assert many.predict([[0.0]])[0] > few.predict([[0.0]])[0] > 0.5


def test_only_the_newest_prompts_are_kept() -> None:
    found = process(memory=3)
    for number in range(5):
        found.observe([[float(number)], [number + 0.5]], [4, 8], [8, 8])
    width = found.state()["width"]
    assert np.ravel(found.state()["points"]) * width == pytest.approx([3.5, 4.0, 4.5])
    assert len(found.state()["weights"]) == 3


def test_wide_embeddings_are_projected_and_stay_apart() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(2, 512))
    easy, hard = (centre + 0.3 * rng.normal(size=(10, 512)) for centre in centres)
    found = process(dimensions=32)
    found.observe(np.concatenate([easy[:5], hard[:5]]), [8] * 5 + [0] * 5, [8] * 10)
    assert found.predict(easy[5:]).min() > 0.6 > 0.4 > found.predict(hard[5:]).max()
    assert np.shape(found.state()["points"]) == (10, 32)


def test_it_goes_on_from_json_to_the_last_bit() -> None:
    rng = np.random.default_rng(0)
    prompts = rng.normal(size=(8, 5))
    one, other = process(), process()
    other.restore(json.loads(json.dumps(one.state())))
    for _ in range(3):
        for some in (one, other):
            some.observe(prompts[:5], [0, 2, 4, 6, 8], [8] * 5)
        other.restore(json.loads(json.dumps(one.state())))
        np.testing.assert_array_equal(one.predict(prompts), other.predict(prompts))


def test_prompts_that_are_all_the_same_are_no_trouble() -> None:
    found = process()
    found.observe(np.ones((4, 2)), [2, 4, 4, 6], [8] * 4)
    assert 0.3 < found.predict(np.ones((1, 2)))[0] < 0.7
