"""Every task is begun before a run starts; what cannot be played is one line, or is skipped."""

from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from megatron_trace.check import tasks as door
from megatron_trace.check.chat import load_codec
from megatron_trace.check.load import load_config
from megatron_trace.check.shards import check_shards
from megatron_trace.check.tasks import (
    check_data,
    check_tasks,
    read_tasks,
    refuse_or_skip,
    skipped,
)
from megatron_trace.config import Config, SettingError
from megatron_trace.config.sources import train_sources
from megatron_trace.data.task_set import TaskSet, read_task_set
from megatron_trace.data.tasks import write_shards

ROOT = Path(__file__).parents[3]
TASK = {"question": "What is the country of Lyon ?", "answers": ["France"]}

ODD = """
from megatron_trace.envs import Environment, StepResult

class Odd(Environment):
    stop = ("</answer>",)

    @classmethod
    def load(cls, options):
        {load}

    def reset(self, task):
        {reset}

    def step(self, action):
        return StepResult("", done=True, reward=0.0, malformed=False)

    def snapshot(self):
        return {snapshot}

    def restore(self, snapshot):
        pass
"""
CHAT = 'return [{"role": "user", "content": "Who ?"}]'


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.chdir(ROOT)
    write_shards([{"title": "Lyon", "text": "A city ."}], str(tmp_path / "corpus-%d.tar"))
    overrides = [f"environment.options.search_qa.corpus={tmp_path}/corpus-*.tar"]
    return load_config("configs/geo_hop_cpu.yaml", overrides)


def task_set(folder: Path, *changed: dict[str, Any] | None) -> TaskSet:
    """Two good tasks, and one for each of `changed`; a value of None removes its key."""
    rows = []
    for number, change in enumerate([{}, {}, *changed]):
        row = {"id": f"t{number}"} | TASK | (change or {})
        rows.append({key: value for key, value in row.items() if value is not None})
    write_shards(rows, str(folder / "tasks-%d.tar"))
    return read_task_set("data.train", str(folder / "tasks-*.tar"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"question": None}, "has no question"),
        ({"answers": None}, "answers must be a list of texts"),
        ({"answers": "the"}, "answers must be a list of texts, at least one, not 'the'"),
        ({"answers": [1969]}, "every answer must be a text that holds a word, not 1969"),
        ({"question": "Lyon " * 600}, "leaves no room for a turn within rollout.max_history_token"),
    ],
)
def test_a_task_that_cannot_be_played_is_one_line_or_skipped(
    tmp_path, config, change, said
) -> None:
    pattern = f"{tmp_path}/tasks-*.tar"
    with pytest.raises(SettingError) as error:
        check_tasks(config, [task_set(tmp_path, change, change)])
    place = f"data.train = '{pattern}': {tmp_path}/tasks-0.tar: 000000002.json: task t2: "
    assert str(error.value).startswith(place) and said in str(error.value)
    assert str(error.value).endswith(
        "(and 1 more); correct it, or leave it out with data.on_bad=skip"
    )
    config.data.on_bad = "skip"
    one = task_set(tmp_path, change, change)
    check_tasks(config, [one])
    assert [task["id"] for task in one.tasks] == ["t0", "t1"]
    assert skipped(one).startswith("data.train: 2 skipped: ") and said in skipped(one)


def test_where_nothing_is_left_the_run_does_not_start(config) -> None:
    config.data.on_bad = "skip"
    one = TaskSet("data.heldout.a", "x", [], ["x: is an empty file"], "0 tasks")
    with pytest.raises(SettingError, match=r"^data\.heldout\.a = 'x': no task can be used: x: is"):
        refuse_or_skip(config, one)


def odd(folder: Path, config: Config, **parts: str) -> Config:
    file = folder / "odd.py"
    given = {"load": "return None", "reset": CHAT, "snapshot": "{}"} | parts
    file.write_text(ODD.format(**given))
    config.environment.name = str(file)
    return config


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (
            {"reset": 'return task["city"]'},
            r"no episode can begin: KeyError: 'city' \(odd.py, line",
        ),
        ({"snapshot": "{1, 2}"}, r"snapshot returned {1, 2} \(set\), which is no dict"),
        ({"reset": "return [3]"}, r"reset returned the message 3 \(int\), which has no role"),
        ({"reset": "return []"}, r"reset returned \[\] \(list\), which is no list of messages"),
        ({"reset": CHAT.replace("Who ?", "\\ud835")}, "the content of a message holds a lone"),
        ({"reset": CHAT.replace('"user"', "3")}, r"the role of a message is 3 \(int\)"),
        ({"reset": "raise SystemExit(3)"}, r"no episode can begin: SystemExit: 3 \(odd.py, line"),
    ],
)
def test_what_an_environment_raises_for_a_task_names_task_and_line(
    tmp_path, config, parts, said
) -> None:
    with pytest.raises(SettingError, match=rf"000000000\.json: task t0: {said}") as error:
        check_tasks(odd(tmp_path, config, **parts), [task_set(tmp_path)])
    assert "\n" not in str(error.value)


def test_what_an_environment_raises_when_it_is_loaded_is_one_line(tmp_path, config) -> None:
    load = 'raise OSError("no such\\n server")'
    said = (
        r"environment\.name = .*odd\.py': cannot be loaded: OSError: no such server \(odd\.py, line"
    )
    with pytest.raises(SettingError, match=said):
        check_tasks(odd(tmp_path, config, load=load), [])


def test_a_corpus_that_cannot_be_read_is_one_line(tmp_path, config) -> None:
    (tmp_path / "corpus-0.tar").write_bytes(b"x" * 2_000)
    (tmp_path / "shards.json").unlink()
    with pytest.raises(SettingError, match=r"cannot be loaded: .*corpus-0\.tar: is no tar archive"):
        door.load_environment(config)


def test_a_model_without_a_tokenizer_is_one_line(tmp_path, config) -> None:
    config.model.path = str(tmp_path)
    with pytest.raises(
        SettingError, match=r"^model\.path = .*: its tokenizer or chat template can"
    ):
        load_codec(config)


def test_a_template_is_given_only_what_it_reads(tmp_path, config) -> None:
    config.model.path = str(copytree(config.model.path, tmp_path / "model"))
    template = tmp_path / "model" / "chat_template.jinja"
    template.write_text(template.read_text() + "{% if enable_thinking %}<think>{% endif %}")
    config.rollout.max_history_tokens = 25
    check_tasks(config, [task_set(tmp_path)])
    # The prompt is measured as the template writes it with its options.
    config.environment.chat_template = {"enable_thinking": True}
    with pytest.raises(SettingError, match="its prompt of 25 tokens leaves no room"):
        check_tasks(config, [task_set(tmp_path)])
    config.environment.chat_template = {"enable_thinkin": True}
    said = r"^environment\.chat_template\.enable_thinkin = True: .* reads nothing of this name"
    with pytest.raises(SettingError, match=said):
        load_codec(config)


@pytest.mark.parametrize("template", ["{% if %}", "{{ raise_exception('no') }}", "{{ 1 / 0 }}"])
def test_a_template_that_cannot_be_used_is_one_line(tmp_path, config, template) -> None:
    config.model.path = str(copytree(config.model.path, tmp_path / "model"))
    (tmp_path / "model" / "chat_template.jinja").write_text(template)
    with pytest.raises(SettingError, match=r"^model\.path = .* cannot be used: ") as error:
        load_codec(config)
    assert "\n" not in str(error.value)


def test_the_tasks_of_all_settings_are_read_and_checked(tmp_path, config) -> None:
    task_set(tmp_path, {"answers": []})
    config.data.train = f"{ROOT}/data/geo_hop/heldout_1-*.tar"
    config.data.heldout = {"a": f"{tmp_path}/tasks-*.tar"}
    with pytest.raises(SettingError, match=r"^data\.heldout\.a = .*task t2: answers must be"):
        check_data(config)
    config.data.heldout = {"a": f"{tmp_path}/none-*.tar"}
    with pytest.raises(SettingError, match=r"^data\.heldout\.a = .*: no such file"):
        check_data(config)


MAP = """
def to_task(row):
    return {"question": row["problem"], "answers": [row["solution"]]}
"""


def test_a_published_file_becomes_tasks_by_a_function_and_its_bad_lines_are_skipped(
    tmp_path, config
) -> None:
    (tmp_path / "mine.py").write_text(MAP)
    good = '{"problem": "What is the country of Lyon ?", "solution": "France"}\n'
    (tmp_path / "qa.jsonl").write_text(good + '{"problem": "Who ?"}\n' + "{\n" + good)
    config.data.train, config.data.heldout = f"{tmp_path}/qa.jsonl", {}
    config.data.map = f"{tmp_path}/mine.py:to_task"
    said = (
        r"^data\.train = .*qa\.jsonl: line 2: data\.map fails: mine\.py: line 3: "
        r"KeyError: 'solution' \(and 1 more\); correct it, or leave it out with data\.on_bad=skip$"
    )
    with pytest.raises(SettingError, match=said):
        check_data(config)
    config.data.on_bad = "skip"
    one = read_tasks(config, train_sources(config.data)[0])
    check_tasks(config, [one])
    assert one.tasks == [{"id": f"qa-{line}"} | TASK for line in (1, 4)]
    assert skipped(one).startswith(f"data.train: 2 skipped: {tmp_path}/qa.jsonl: line 2: data.map")


def test_a_file_of_another_kind_is_refused_whatever_is_skipped(tmp_path, config) -> None:
    (tmp_path / "qa.csv").write_text("question,answer")
    config.data.train, config.data.on_bad = f"{tmp_path}/qa.csv", "skip"
    for check in (check_data, check_shards):
        with pytest.raises(SettingError, match=r"^data\.train = .*qa\.csv: is no data file by its"):
            check(config)


def test_an_option_of_an_environment_may_name_files_of_any_kind(tmp_path, config) -> None:
    config.data.train, config.data.heldout = f"{tmp_path}/corpus-0.tar", {}
    (tmp_path / "words.csv").touch()
    config.environment.options["search_qa"]["corpus"] = f"{tmp_path}/words.csv"
    check_shards(config)
    said = r"cannot be loaded: .*words\.csv: is no data file by its extension"
    with pytest.raises(SettingError, match=said):
        door.load_environment(config)


def test_a_corpus_may_be_json_lines(tmp_path, config) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"title": "Lyon", "text": "A city ."}\n')
    config.environment.options["search_qa"]["corpus"] = f"{tmp_path}/corpus.jsonl"
    door.load_environment(config)


def test_no_corpus_is_needed_beside_a_retriever(tmp_path, config) -> None:
    config.data.train, config.data.heldout = f"{tmp_path}/corpus-0.tar", {}
    options = config.environment.options["search_qa"]
    options["corpus"] = ""
    with pytest.raises(SettingError, match=r"search_qa\.corpus = '': must name data files"):
        check_shards(config)
    options["retriever"] = f"{tmp_path}/index"
    check_shards(config)
    with pytest.raises(SettingError, match=r"search_qa\.retriever = '.*/index': .*holds no index"):
        door.load_environment(config)


@pytest.mark.parametrize("least", [4, 5])
def test_the_check_of_many_tasks_is_shared_and_keeps_their_order(
    config, tmp_path, monkeypatch, least
) -> None:
    monkeypatch.setattr(door, "SHARED_FROM", least)
    config.data.on_bad = "skip"
    parts: list[int] = []

    def halves(function, items):
        parts.extend([2, len(items) - 2])
        return [*function(items[:2]), *function(items[2:])]

    sets = [task_set(tmp_path / "a"), task_set(tmp_path / "b", {"answers": []})]
    sets[0].rows = sets[0].rows[:1]
    check_tasks(config, sets, halves)
    assert parts == ([2, 2] if least == 4 else [])
    assert [[task["id"] for task in one.tasks] for one in sets] == [["t0"], ["t0", "t1"]]
    assert [len(one.problems) for one in sets] == [0, 1]


def test_a_key_in_a_url_is_not_shown(config, tmp_path) -> None:
    # Nothing listens on port 9.
    config.data.train = "http://127.0.0.1:9/a.jsonl?X-Amz-Signature=secret"
    for check in (check_shards, check_data):
        with pytest.raises(SettingError) as error:
            check(config)
        said = str(error.value)
        assert said.startswith("data.train = 'http://127.0.0.1:9/a.jsonl?***': no such file: http")
        assert "secret" not in said
