"""The demonstrations of search_chat's start policy, a run of its maker, and the shipped folder."""

import random
import sys
from pathlib import Path

import cloning
import pytest
from cloning_chat import conversation
from transformers import AutoTokenizer

from megatron_trace.check.load import load_config
from megatron_trace.config import EnvironmentConfig
from megatron_trace.envs import make_environments
from megatron_trace.models.chat import TextCodec, load_codec
from megatron_trace.models.renderer import make_renderer

SHIPPED = Path(__file__).parents[3] / "examples/geo_hop/chat_policy"


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("make_search_chat_policy")


@pytest.fixture
def new_episode(geo_hop):
    config = load_config("configs/geo_hop_chat_cpu.yaml").environment
    options = {"search_chat": {**config.options["search_chat"]}}
    options["search_chat"]["corpus"] = str(geo_hop / "corpus-*.tar")
    return make_environments(EnvironmentConfig("search_chat", config.max_turns, options))


def test_the_environment_answers_as_the_demonstrations_say(tool, geo_hop, new_episode) -> None:
    codec = load_codec(SHIPPED)
    renderer = make_renderer(codec)
    assert renderer.name == "template"
    shown = tool.Demonstrations.read(geo_hop, tool.PHASES["noisy"])
    player, rng = shown.demonstrator(0.0), random.Random(0)
    for task in shown.tasks[::400]:
        question, *rest = player.play(task, rng)
        told = [tool.found(segment.text) for segment in rest if segment.kind == "observation"]
        said = [tool.turn(segment.text) for segment in rest if segment.kind == "action"]
        episode, rewards, seen = new_episode(), [], []
        (prompt,) = episode.reset(task)
        assert prompt["content"] == question.text

        def answer(reply, episode=episode, rewards=rewards, seen=seen):
            result = episode.step(reply)
            assert not result.malformed
            rewards.append(result.reward)
            if result.done:
                return None
            seen.extend(result.observation)
            return result.observation

        prompt_ids = renderer.prompt_ids([prompt], episode.tools)
        list(conversation(renderer, codec, prompt_ids, said, answer))
        assert [message["content"] for message in seen] == [message["content"] for message in told]
        assert rewards[-1] == 1.0


def test_a_name_is_the_same_tokens_in_a_call_as_in_a_document() -> None:
    codec = load_codec(SHIPPED)
    called, document = codec.encode('{"query": " Krakow"}'), codec.encode("City: Krakow )")
    name = codec.encode(" Krakow")
    for ids in (called, document):
        assert any(ids[at : at + len(name)] == name for at in range(len(ids)))


def test_a_few_steps_write_a_policy(tool, geo_hop, tmp_path, monkeypatch) -> None:
    out = tmp_path / "policy"
    monkeypatch.setattr(cloning, "POOL", 8)
    monkeypatch.setattr(tool, "DATA", geo_hop)
    monkeypatch.setattr(tool, "TOKENIZER_EPISODES", 1_000)
    monkeypatch.setattr(sys, "argv", f"x --out {out} --steps 2 --tokens-per-batch 256".split())
    tool.main()
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {f.name for f in out.iterdir()}
    assert make_renderer(TextCodec(AutoTokenizer.from_pretrained(out))).name == "template"


def test_the_shipped_policy_is_small() -> None:
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) <= 8_000_000


def test_without_its_data_a_line_says_how_to_make_them(tool, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tool, "DATA", tmp_path / "nowhere")
    monkeypatch.setattr(sys, "argv", ["x", "--out", str(tmp_path / "policy")])
    with pytest.raises(SystemExit, match="nowhere: no such folder; python tools/build_"):
        tool.main()
