"""The engine on a GPU says what the trainer says, also after its weights were replaced.

The checks are those of tools/check_gpu.py, and share the samples of one engine.
"""

from pathlib import Path

import pytest
import torch
from gpu_checks import engine
from gpu_checks.check import Context

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return Context("cuda", Path(tmp_path_factory.mktemp("engine")))


def test_predictions_and_entropies_of_an_engine_are_the_trainers(context: Context) -> None:
    engine.engine(context)


def test_weights_that_are_loaded_layer_by_layer_are_those_that_sample(context: Context) -> None:
    engine.layerwise_reload(context)
