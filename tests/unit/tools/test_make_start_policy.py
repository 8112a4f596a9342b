"""The start policy's demonstrations and tokenizer, and the shipped folder."""

import json
import random
import re
import sys
from pathlib import Path

import cloning_tokenizer as tokenization
import geo_hop_demonstrator as demonstrator
import geo_hop_evaluation as evaluation
import pytest

from megatron_trace.check.load import load_config
from megatron_trace.data.tasks import load_tasks

SHIPPED = Path(__file__).parents[3] / "examples/geo_hop/start_policy"
COMPETENT = SHIPPED.parent / "competent_policy"


@pytest.fixture(scope="module")
def world(geo_hop):
    return {
        d["title"]: d["fields"]
        for d in load_tasks(str(geo_hop / "corpus-*.tar"))
        if not d["heldout"]
    }


@pytest.fixture(scope="module")
def tasks(geo_hop):
    return load_tasks(str(geo_hop / "train-*.tar"))[::65]


@pytest.fixture(scope="module")
def play(geo_hop, world):
    make = demonstrator.geo_hop_episodes(geo_hop)

    def played(tasks, noise):
        player, rng = demonstrator.Demonstrator(make, world, noise), random.Random(0)
        return [player.play(task, rng) for task in tasks]

    return played


@pytest.fixture(scope="module")
def shipped():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(SHIPPED)


def answered(segments):
    found = re.findall(r"<answer> (.*?)</answer>", segments[-1].text)
    return found[0] if found else None


def test_the_competent_demonstrator_is_always_right(play, tasks) -> None:
    assert [answered(segments) for segments in play(tasks, 0.0)] == [
        task["answers"][0] for task in tasks
    ]


def test_the_noisy_demonstrator_errs_more_on_longer_tasks(play, tasks) -> None:
    right = [
        answered(s) == t["answers"][0] for s, t in zip(play(tasks * 5, 0.4), tasks * 5, strict=True)
    ]
    by_hops = {
        h: [r for r, t in zip(right, tasks * 5, strict=True) if t["hops"] == h] for h in (1, 4)
    }
    assert 0.0 < sum(by_hops[4]) / len(by_hops[4]) < sum(by_hops[1]) / len(by_hops[1]) < 1.0


def test_the_noisy_demonstrator_names_only_what_it_has_seen(play, tasks) -> None:
    for segments in play(tasks, 0.4):
        for n, segment in enumerate(segments):
            history = "".join(earlier.text for earlier in segments[:n])
            named = re.findall(r"<(?:search|answer)> (.*?)</", segment.text)
            assert all(name in history for name in named)


def test_renaming_is_consistent_and_leaves_no_real_name(play, world, tasks) -> None:
    rng = random.Random(0)
    for task, segments in zip(tasks, play(tasks, 0.0), strict=True):
        renamed = demonstrator.rename(
            segments, world, rng, demonstrator.names_from_titles(list(world))
        )
        assert [(s.kind, s.learn) for s in renamed] == [(s.kind, s.learn) for s in segments]
        assert not any(f" {task['chain'][0]} " in s.text for s in renamed)
        assert any(f" {answered(renamed)} " in s.text for s in renamed if s.kind == "observation")


def test_the_shipped_tokenizer_has_whole_tags_and_two_unused_tokens(shipped) -> None:
    assert len(shipped) == demonstrator.VOCABULARY
    assert shipped.convert_tokens_to_ids(tokenization.UNUSED) == [2_046, 2_047]
    assert shipped.eos_token == "<|im_end|>" and shipped.pad_token == "<|endoftext|>"
    for tag in demonstrator.TAGS:
        ids = shipped.encode(tag, add_special_tokens=False)
        assert len(ids) == 1 and shipped.decode(ids, skip_special_tokens=True) == tag


def test_the_shipped_chat_template_is_compact(shipped) -> None:
    ids = tokenization.prompt_ids(shipped, "What is the country of Lyon ?")
    expected = "<|im_start|>user\nWhat is the country of Lyon ?<|im_end|>\n<|im_start|>assistant\n"
    assert shipped.decode(ids) == expected


def test_the_longest_wide_task_can_be_solved_within_the_limits_of_its_config(
    load_tool, shipped, tmp_path, monkeypatch
) -> None:
    build = load_tool("build_geo_hop")
    config = load_config("configs/geo_hop_wide_cpu.yaml")
    turns, hops = config.environment.max_turns, max(build.WIDE.train["broad"])
    build.build(tmp_path, 0, build.TaskSets({"broad": {hops: 20}}, heldout=0, strict=True))
    documents = load_tasks(str(tmp_path / "corpus-*.tar"))
    world = {document["title"]: document["fields"] for document in documents}
    longest = load_tasks(str(tmp_path / "broad-*.tar"))
    make = demonstrator.geo_hop_episodes(tmp_path, turns)
    player = demonstrator.Demonstrator(make, world, noise=0.0, max_turns=turns)
    # Without needless searches: an episode that is never lost is the shortest.
    monkeypatch.setattr(demonstrator, "DETOUR_RATE", 0.0)
    for task in longest:
        segments = player.play(task, random.Random(0))
        assert answered(segments) == task["answers"][0]
        assert len(tokenization.encode(shipped, segments)[0]) <= config.rollout.max_history_tokens


def test_a_policy_that_undoes_its_noise_keeps_its_tokens_and_loses_its_predictor(
    load_tool, geo_hop, tmp_path, monkeypatch
) -> None:
    tool, out = load_tool("make_start_policy"), tmp_path / "competent"
    rounds = (tool.Round(1, 1e-3, renamed=0.5, pieces="tokens"),) * 2
    monkeypatch.setattr(tool, "UNDOING_ROUNDS", rounds)
    monkeypatch.setitem(tool.PHASES, "wide", tool.PHASES["competent"])
    line = f"x --undo {SHIPPED} --data {geo_hop} --out {out} --tokens-per-batch 256"
    monkeypatch.setattr(sys, "argv", line.split())
    tool.make_policy(tool.parse())
    assert (out / "tokenizer.json").read_bytes() == (SHIPPED / "tokenizer.json").read_bytes()
    assert not (out / "predictor.safetensors").exists()
    weights = [folder / "model.safetensors" for folder in (out, SHIPPED)]
    assert weights[0].read_bytes() != weights[1].read_bytes()


def test_a_folder_without_a_model_cannot_be_undone(
    load_tool, tmp_path, monkeypatch, capsys
) -> None:
    tool = load_tool("make_start_policy")
    monkeypatch.setattr(sys, "argv", ["x", "--undo", str(tmp_path), "--out", str(tmp_path / "new")])
    with pytest.raises(SystemExit):
        tool.parse()
    assert f"--undo {tmp_path}: no folder of a model" in capsys.readouterr().err


def test_an_episode_is_tokenized_segment_by_segment(play, tasks, shipped) -> None:
    segments = play(tasks[:1], 0.0)[0]
    ids, learn = tokenization.encode(shipped, segments)
    assert len(ids) == len(learn)
    actions = [s.text for s in segments if s.kind == "action"]
    assert shipped.decode([t for t, flag in zip(ids, learn, strict=True) if flag]) == "".join(
        actions
    )
    assert shipped.decode(ids).endswith("".join(s.text for s in segments[1:]))


@pytest.mark.parametrize("folder", [SHIPPED, COMPETENT], ids=lambda folder: folder.name)
def test_a_shipped_policy_is_small_and_loads_in_float32(folder) -> None:
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 8_000_000
    config = json.loads((folder / "config.json").read_text())
    assert (
        config["dtype"] == "float32"
        and config["tie_word_embeddings"]
        and config["vocab_size"] == demonstrator.VOCABULARY
    )


def test_the_evaluated_folder_lacks_nothing_but_the_predictor() -> None:
    names = {file.name for file in SHIPPED.iterdir()}
    assert "predictor.safetensors" in names
    with evaluation.without_predictor(SHIPPED) as folder:
        assert {file.name for file in folder.iterdir()} == names - {"predictor.safetensors"}
        config = folder / "config.json"
        assert config.read_bytes() == (SHIPPED / "config.json").read_bytes()


def test_success_is_the_mean_over_hops_and_not_over_tasks() -> None:
    tasks = [{"hops": 1}, {"hops": 2}, {"hops": 2}, {"hops": 2}]
    lengths = {"prompt": [4, 4, 4, 4], "action": [2, 3], "observation": [5]}
    samples = evaluation.Samples([1.0, 0.0, 0.0, 1.0], 1, lengths, [9, 6, 7, 8])
    found = evaluation.summary(tasks, samples)
    assert found["success_by_hops"] == {"1": 1.0, "2": 0.333}
    assert found["success"] == 0.666
    assert found["malformed"] == 0.25
    assert found["mean_tokens"] == {"prompt": 4.0, "action": 2.5, "observation": 5.0}
    assert found["max_tokens"] == {"prompt": 4, "action": 3, "observation": 5, "rollout": 9}
