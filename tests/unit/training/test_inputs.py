"""What a run trains on: read once, known by its content, and what is skipped is an event."""

import json
from pathlib import Path
from shutil import copytree

import pytest

from megatron_trace.check.command import Command
from megatron_trace.check.load import load_config
from megatron_trace.config import SettingError
from megatron_trace.data.mixture import WeightedTasks
from megatron_trace.data.tasks import write_shards
from megatron_trace.envs.retrieval.index_folder import build_index
from megatron_trace.envs.retrieval.passages import Passage
from megatron_trace.training import inputs as module
from megatron_trace.training.identity import OtherRun, check_same
from megatron_trace.training.inputs import RunInputs

ROOT = Path(__file__).parents[3]
TASKS = [{"id": f"t{n}", "question": f"Where is {n} ?", "answers": ["here"]} for n in range(4)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A start policy, tasks, held-out tasks and a corpus."""
    policy = tmp_path / "policy"
    copytree(ROOT / "examples/geo_hop/start_policy", policy)
    write_shards(TASKS, str(tmp_path / "train-%d.tar"))
    write_shards(TASKS[:3], str(tmp_path / "heldout-%d.tar"))
    write_shards([{"title": "here", "text": "A place ."}], str(tmp_path / "corpus-%d.tar"))
    return tmp_path


def inputs_of(folder: Path, *overrides: str, replay: Path | None = None) -> RunInputs:
    places = [
        f"model.path={folder}/policy",
        f"data.train={folder}/train-*.tar",
        f"data.heldout={{here: {folder}/heldout-*.tar}}",
        f"environment.options.search_qa.corpus={folder}/corpus-*.tar",
    ]
    return RunInputs(Command(load_config(None, [*places, *overrides]), replay, False))


def test_the_same_files_elsewhere_are_the_same_run(folder, tmp_path_factory) -> None:
    moved = copytree(folder, tmp_path_factory.mktemp("elsewhere") / "all")
    check_same(Path("c"), inputs_of(folder).identity, inputs_of(moved).identity)


@pytest.mark.parametrize(
    ("file", "place", "named"),
    [
        ("policy/model.safetensors", -1, "model.weights"),
        ("policy/predictor.safetensors", -1, "model.weights"),
        ("policy/chat_template.jinja", 0, "model.tokenizer"),
        ("policy/tokenizer.json", 0, "model.tokenizer"),
        ("corpus-0.tar", 530, "environment.options.search_qa.corpus"),
    ],
)
def test_other_content_under_the_same_name_is_told(folder, file, place, named) -> None:
    before = inputs_of(folder).identity
    content = bytearray((folder / file).read_bytes())
    content[place] ^= 1
    (folder / file).write_bytes(content)
    with pytest.raises(OtherRun, match=rf"\n  {named}: .* in the checkpoint, .* now\n"):
        check_same(Path("c"), before, inputs_of(folder).identity)


def test_an_index_with_other_passages_is_told(folder) -> None:
    index = folder / "index"
    option = f"environment.options.search_qa.retriever={index}"
    given = [option, "environment.options.search_qa.corpus="]
    build_index(index, [Passage("here", "A place .")], "")
    before = inputs_of(folder, *given).identity
    build_index(index, [Passage("here", "A town .")], "")
    with pytest.raises(
        OtherRun, match=r"\n  environment reads retriever/passages\.jsonl: 'a file with SHA-256"
    ):
        check_same(Path("c"), before, inputs_of(folder, *given).identity)


def test_an_edited_task_of_the_same_id_is_told(folder) -> None:
    before = inputs_of(folder).identity
    write_shards([TASKS[0] | {"answers": ["there"]}, *TASKS[1:]], str(folder / "train-%d.tar"))
    with pytest.raises(
        OtherRun, match=r"data\.train: '4 tasks with SHA-256 \w+' in the checkpoint"
    ):
        check_same(Path("c"), before, inputs_of(folder).identity)


def test_another_function_of_the_rows_is_told_where_its_tasks_differ(folder) -> None:
    lines = "".join(json.dumps({"q": task["question"]}) + "\n" for task in TASKS)
    (folder / "qa.jsonl").write_text(lines)
    given = [f"data.train={folder}/qa.jsonl", f"data.map={folder}/mine.py:to_task"]
    text = 'def to_task(row):\n    return {"question": row["q"], "answers": ["here"]}\n'
    (folder / "mine.py").write_text(text)
    before = inputs_of(folder, *given).identity
    # What counts is the tasks, not the text that makes them.
    (folder / "mine.py").write_text(f"# A comment.\n{text}")
    check_same(Path("c"), before, inputs_of(folder, *given).identity)
    (folder / "mine.py").write_text(text.replace("here", "there"))
    with pytest.raises(
        OtherRun, match=r"data\.train: '4 tasks with SHA-256 \w+' in the checkpoint"
    ):
        check_same(Path("c"), before, inputs_of(folder, *given).identity)


def test_what_is_skipped_is_an_event_and_does_not_change_who_the_run_is(folder) -> None:
    bad = [*TASKS, {"id": "t9", "question": "Who ?", "answers": []}]
    write_shards(bad, str(folder / "train-%d.tar"))
    with pytest.raises(SettingError, match=r"^data\.train = .*task t9: answers must be a list"):
        inputs_of(folder).check()
    inputs = inputs_of(folder, "data.on_bad=skip", "evaluation.tasks=2")
    before = inputs_of(folder).identity
    inputs.check()
    assert inputs.tasks == [WeightedTasks(TASKS)]
    assert inputs.evaluation_tasks == {"here": TASKS[:2]}
    (event,) = inputs.notes()
    assert event.startswith("data.train: 1 skipped: ") and "task t9" in event
    check_same(Path("c"), before, inputs.identity)


def test_shards_that_cannot_be_read_are_refused_on_every_rank(folder) -> None:
    (folder / "train-0.tar").write_bytes((folder / "train-0.tar").read_bytes()[:2_000])
    with pytest.raises(SettingError, match=r"^data\.train = .*train-0\.tar: has 2000 bytes, not"):
        _ = inputs_of(folder).identity
    (folder / "shards.json").write_text(json.dumps({"train-1.tar": {"bytes": 1, "sha256": "a"}}))
    with pytest.raises(SettingError, match=r"^data\.train = .*train-1\.tar is in .*but missing"):
        _ = inputs_of(folder).identity


def test_a_replay_reads_no_tasks(folder, monkeypatch) -> None:
    monkeypatch.setattr(module, "read_tasks", None)
    # Nor is there an environment to read an index.
    nowhere = f"environment.options.search_qa.retriever={folder}/nowhere"
    inputs = inputs_of(folder, nowhere, replay=folder)
    inputs.check()
    assert inputs.tasks == [] and inputs.notes() == []
    assert inputs.identity["data.train"] == "none"


def test_tasks_are_read_once(folder) -> None:
    inputs = inputs_of(folder)
    assert inputs.train[""] is inputs.train[""]
    assert inputs.heldout is inputs.heldout


def mixed(folder: Path, *overrides: str) -> RunInputs:
    (folder / "more").mkdir(exist_ok=True)
    write_shards(TASKS[:2], str(folder / "more" / "train-%d.tar"))
    sources = f"{{one: {folder}/train-*.tar, two: {{files: {folder}/more/train-*.tar, weight: 3}}}}"
    return inputs_of(folder, f"data.train={sources}", *overrides)


def test_sources_may_hold_the_same_ids_and_keep_their_weights(folder) -> None:
    inputs = mixed(folder)
    inputs.check()
    one, two = inputs.tasks
    assert [task["id"] for task in one.tasks] == ["one/t0", "one/t1", "one/t2", "one/t3"]
    assert [task["id"] for task in two.tasks] == ["two/t0", "two/t1"]
    assert (one.weight, two.weight, two.name) == (1.0, 3.0, "two")


def test_another_weight_or_other_tasks_of_a_source_are_another_run(folder) -> None:
    before = mixed(folder).identity
    check_same(Path("c"), before, mixed(folder).identity)
    with pytest.raises(OtherRun, match=r"\n  data\.train\.two\.weight: 3\.0 in the .*, 2\.0 now\n"):
        check_same(Path("c"), before, mixed(folder, "data.train.two.weight=2").identity)
    with pytest.raises(OtherRun, match=r"\n  data\.train: 'absent' in the checkpoint"):
        check_same(Path("c"), before, inputs_of(folder).identity)
    write_shards([TASKS[0] | {"answers": ["there"]}, *TASKS[1:]], str(folder / "train-%d.tar"))
    with pytest.raises(OtherRun, match=r"\n  data\.train\.one: '4 tasks with"):
        check_same(Path("c"), before, mixed(folder).identity)


def test_a_task_that_cannot_be_played_names_its_source(folder) -> None:
    inputs = mixed(folder)
    bad = [*TASKS[:2], {"id": "t9", "question": "Who ?", "answers": []}]
    write_shards(bad, str(folder / "more" / "train-%d.tar"))
    with pytest.raises(
        SettingError, match=r"^data\.train\.two = .*train-0\.tar: .*task two/t9: ans"
    ):
        inputs.check()
