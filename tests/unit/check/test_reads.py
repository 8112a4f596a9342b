"""What an environment reads is part of a run; an environment that cannot say it is one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from megatron_trace.check.load import load_config
from megatron_trace.check.reads import environment_reads
from megatron_trace.check.tasks import check_data
from megatron_trace.config import Config, SettingError
from megatron_trace.envs.bfcl import package
from megatron_trace.envs.retrieval.index_folder import build_index
from megatron_trace.envs.retrieval.passages import Passage

MAP = """
from pathlib import Path
from megatron_trace.envs import Environment, StepResult

class Walk(Environment):
    stop = ()

    @classmethod
    def reads(cls, options):
        {reads}

    def reset(self, task):
        return [{{"role": "user", "content": "Where ?"}}]

    def step(self, action):
        return StepResult("", done=True, reward=0.0, malformed=False)

    def snapshot(self):
        return {{}}

    def restore(self, snapshot):
        pass
"""


def config_of(*overrides: str) -> Config:
    return load_config(None, [*overrides])


def walk(folder: Path, reads: str) -> Config:
    (folder / "walk.py").write_text(MAP.format(reads=reads))
    return config_of(f"environment.name={folder}/walk.py")


def searching(folder: Path, name: str = "search_qa") -> Config:
    option = f"environment.options.{name}.retriever={folder}"
    return config_of(f"environment.name={name}", option)


def indexed(folder: Path, *texts: str, stopwords: str | None = None) -> Path:
    build_index(folder, [Passage("T", text) for text in texts], "by hand", stopwords)
    return folder


@pytest.mark.parametrize("name", ["search_qa", "search_chat"])
def test_an_index_is_known_by_its_passages_wherever_it_lies(tmp_path: Path, name: str) -> None:
    first = indexed(tmp_path / "first", "a city", "a country")
    known = environment_reads(searching(first, name))
    assert set(known) == {
        "environment reads retriever/passages.jsonl", "environment reads retriever/stopwords"
    }  # fmt: skip
    shutil.copytree(first, tmp_path / "elsewhere")
    assert environment_reads(searching(tmp_path / "elsewhere", name)) == known
    again = indexed(tmp_path / "again", "a city", "a country")
    assert environment_reads(searching(again, name)) == known
    # The same words, another text.
    other = indexed(tmp_path / "other", "a city city", "a country")
    assert environment_reads(searching(other, name)) != known
    stopped = indexed(tmp_path / "stopped", "a city", "a country", stopwords="english")
    changed = environment_reads(searching(stopped, name))
    assert [one for one in known if known[one] != changed[one]] == [
        "environment reads retriever/stopwords"
    ]


def test_a_server_and_a_corpus_name_nothing_more(tmp_path: Path) -> None:
    url = "environment.options.search_qa.retriever=http://127.0.0.1:1/retrieve"
    assert environment_reads(config_of("environment.name=search_qa", url)) == {}
    assert environment_reads(config_of("environment.name=search_qa")) == {}


def test_a_folder_without_an_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        SettingError, match=r"^environment\.options\.search_qa\.retriever = .*index"
    ):
        environment_reads(searching(tmp_path))


def test_function_calling_is_known_by_its_package(monkeypatch: Any) -> None:
    config = config_of("environment.name=function_calling")
    assert environment_reads(config) == {"environment reads bfcl-eval": package.version()}
    monkeypatch.setattr(package, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match="pip install --no-deps bfcl-eval"):
        environment_reads(config)


def test_the_function_that_judges_answers_is_known_by_its_file(tmp_path: Path) -> None:
    judge = tmp_path / "judge.py"
    judge.write_text("def score(task, answer):\n    return 1.0\n")
    option = f"environment.options.mcp_tools.score={judge}:score"
    config = config_of("environment.name=mcp_tools", option)
    known = environment_reads(config)
    judge.write_text("def score(task, answer):\n    return 0.0\n")
    assert set(known) == {"environment reads score/judge.py"} and environment_reads(config) != known
    assert environment_reads(config_of("environment.name=mcp_tools")) == {}


def test_ones_own_environment_names_files_and_versions(tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text("[1, 2]")
    config = walk(tmp_path, f'return {{"map.json": Path("{tmp_path}/map.json"), "engine": "1.2"}}')
    known = environment_reads(config)
    assert known["environment reads engine"] == "1.2"
    assert known["environment reads map.json"].startswith("a file with SHA-256 ")
    (tmp_path / "map.json").write_text("[1, 3]")
    assert environment_reads(config) != known


@pytest.mark.parametrize(
    ("reads", "said"),
    [
        ('return {"map": Path("FOLDER/none.json")}', r"it reads .*none\.json: No such file"),
        ('return {"map": Path("FOLDER")}', r"it reads .*: Is a directory"),
        ('return ["map.json"]', r"must return names -> paths or texts, not \['map\.json'\]"),
        ('return {"map": 3}', r"must return names -> paths or texts, not 'map': 3"),
        ('raise RuntimeError("no map")', r"its reads fails: RuntimeError: no map"),
    ],
)
def test_what_cannot_be_read_is_told_with_the_tasks(tmp_path: Path, reads: str, said: str) -> None:
    walk(tmp_path, reads.replace("FOLDER", str(tmp_path)))
    (tmp_path / "tasks.jsonl").write_text(json.dumps({"id": "t"}) + "\n")
    root = Path(__file__).parents[3]
    config = config_of(
        f"environment.name={tmp_path}/walk.py", f"data.train={tmp_path}/tasks.jsonl",
        "data.heldout={}", f"model.path={root}/examples/geo_hop/start_policy",
    )  # fmt: skip
    with pytest.raises(SettingError, match=rf"^environment\.name = .*{said}") as caught:
        check_data(config)
    assert "\n" not in str(caught.value)
