"""The demonstrations of function_calling's start policy, a run of its maker, and the shipped folder."""

import json
import random
import sys
from pathlib import Path

import cloning
import pytest

pytest.importorskip("bfcl_eval")

from megatron_trace.data.tasks import load_tasks
from megatron_trace.envs.bfcl.schemas import tools_of
from megatron_trace.envs.bfcl.scores import is_right
from megatron_trace.envs.bfcl.tasks import docs_at_first
from megatron_trace.models.chat import load_codec
from megatron_trace.models.messages import ToolCall
from megatron_trace.models.renderer import make_renderer

SHIPPED = Path(__file__).parents[3] / "examples/function_calling/start_policy"


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("make_function_calling_policy")


@pytest.fixture(scope="module")
def bfcl(load_tool, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bfcl")
    load_tool("build_bfcl").build(folder)
    return folder


def called(one) -> dict:
    return json.loads(one.call().split("\n")[1])


def test_bfcl_accepts_what_is_shown(tool, bfcl) -> None:
    tasks = [t for name in tool.CATEGORIES for t in load_tasks(f"{bfcl}/train_{name}-*.tar")]
    shown = [(task, one) for task in tasks if (one := tool.shown(task))]
    assert len(shown) > 0.85 * len(tasks)
    right = 0
    for task, one in shown:
        body = called(one)
        right += is_right(task, [ToolCall(body["name"], body["arguments"], "call_0")])
    # Two questions leave out an argument that BFCL wants, and its answer guesses it.
    assert right >= len(shown) - 2


def test_values_with_other_names_are_told_in_the_question(tool) -> None:
    doc = {
        "name": "area",
        "description": "Area.",
        "parameters": {
            "type": "dict",
            "properties": {
                "base": {"type": "integer", "description": "Base."},
                "place": {"type": "string", "description": "Place."},
            },
            "required": ["base"],
        },
    }
    one = tool.Shown("A base of 10 in Rome, 10 wide?", doc, {"base": 10, "place": "Rome"})
    rng = random.Random(0)
    names = set()
    for _ in range(50):
        other = tool.renamed(one, rng, lambda rng: rng.choice(("Some Name", "Ox")))
        base, place = other.arguments.values()
        assert other.question == f"A base of {base} in {place}, {base} wide?"
        assert list(other.doc["parameters"]["properties"]) == list(other.arguments)
        assert other.doc["parameters"]["required"] == list(other.arguments)[:1]
        names.add(other.doc["name"])
    assert names == {"some_name", "ox"}
    assert doc["name"] == "area"


def test_an_optional_argument_that_the_question_does_not_tell_is_left_out(tool) -> None:
    def task(question: str) -> dict:
        properties = {"years": {"type": "integer"}, "model": {"type": "string"}}
        doc = {"name": "f", "parameters": {"properties": properties, "required": ["years"]}}
        return {
            "category": "simple_python",
            "question": [[{"role": "user", "content": question}]],
            "function": json.dumps([doc]),
            "ground_truth": [{"f": {"model": ["", "Darwin"], "years": [50]}}],
        }

    assert tool.shown(task("50 years?")).arguments == {"years": 50}
    assert tool.shown(task("50 years, darwin?")).arguments == {"years": 50, "model": "Darwin"}


def test_every_task_of_the_configuration_fits(bfcl) -> None:
    from megatron_trace.check.load import load_config

    config = load_config("configs/bfcl_cpu.yaml").rollout
    codec = load_codec(SHIPPED)
    renderer = make_renderer(codec)
    assert renderer.name == "template"
    room = config.max_history_tokens - config.max_turn_tokens
    for task in load_tasks(f"{bfcl}/*_simple_python-*.tar"):
        ids = renderer.prompt_ids(task["question"][0], tools_of(docs_at_first(task)))
        assert len(ids) <= room


def test_a_few_steps_write_a_policy(tool, bfcl, tmp_path, monkeypatch) -> None:
    out = tmp_path / "policy"
    monkeypatch.setattr(cloning, "POOL", 8)
    monkeypatch.setattr(tool, "DATA", bfcl)
    monkeypatch.setattr(sys, "argv", f"x --out {out} --steps 2 --tokens-per-batch 512".split())
    tool.main()
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {f.name for f in out.iterdir()}


def test_the_shipped_policy_is_small() -> None:
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) <= 8_500_000


def test_without_its_data_a_line_says_how_to_make_them(tool, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tool, "DATA", tmp_path / "nowhere")
    monkeypatch.setattr(sys, "argv", ["x", "--out", str(tmp_path / "policy")])
    with pytest.raises(SystemExit, match="nowhere: no such folder; python tools/build_"):
        tool.main()
