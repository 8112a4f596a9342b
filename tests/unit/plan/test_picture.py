"""The picture shows every GPU."""

from xml.etree import ElementTree

import pytest

from megatron_trace.check.load import load_config
from megatron_trace.plan.assumptions import Assumptions
from megatron_trace.plan.machines import GPUS, Cluster
from megatron_trace.plan.picture import picture
from megatron_trace.plan.planner import make_plan


@pytest.fixture
def drawn(model):
    """Texts in the picture of Qwen3-14B's shipped configuration."""

    def draw(nodes: int, *overrides: str) -> list[str]:
        config = load_config("configs/qwen3_14b.yaml", overrides)
        cluster = Cluster(nodes, 8, GPUS["h100-80gb"])
        plan = make_plan(config, model("Qwen3-14B"), cluster, Assumptions(), exact=False)
        tree = ElementTree.fromstring(picture(plan))
        return [element.text or "" for element in tree.iter("{http://www.w3.org/2000/svg}text")]

    return draw


def test_every_train_rank_and_engine_has_a_cell(drawn) -> None:
    texts = drawn(2)
    assert {f"rank {rank}" for rank in range(8)} <= set(texts)
    assert [text for text in texts if text.startswith("engine ")] == [
        f"engine {n // 2}" for n in range(8)
    ]
    assert "tp 3 · cp 0 · dp 1" in texts


def test_stages_show_their_layers(drawn) -> None:
    texts = drawn(2, "parallel.pipeline=2")
    assert "pp 0 · layers 1-20" in texts and "pp 1 · layers 21-40" in texts


def test_a_gpu_with_too_much_says_so(drawn) -> None:
    assert any(
        float(text.split(" of ")[0]) > 79.6
        for text in drawn(2, "parallel.tensor=1")
        if " of 79.6 GiB" in text
    )


def test_a_large_cluster_is_cut_short(drawn) -> None:
    texts = drawn(32)
    assert "24 nodes between them are like these" in texts
    assert len([text for text in texts if text.startswith("node ")]) == 8
