"""A wrong setting is one line that names it, its value and what would be right."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from megatron_trace.allocation import STRATEGIES
from megatron_trace.check.command import check_config, check_settings, parse_command, problems_here
from megatron_trace.check.load import load_config
from megatron_trace.check.loggers import LIBRARIES
from megatron_trace.config import Config, Precision, SettingError, all_settings
from megatron_trace.data.tasks import write_shards
from megatron_trace.envs import ENVIRONMENTS
from megatron_trace.learning import ESTIMATORS
from megatron_trace.plan.dry_run import dry_run

MODEL = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "num_hidden_layers": 4,
    "max_position_embeddings": 1024,
    "vocab_size": 2048,
}


@pytest.fixture
def settings(tmp_path: Path) -> list[str]:
    """Overrides that give a config without a fault."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(MODEL))
    (tmp_path / "train-000000.tar").touch()
    return [
        f"model.path={tmp_path}/model",
        f"data.train={tmp_path}/train-*.tar",
        "rollout.weight_backend=ray",
        "rollout.max_history_tokens=512",
        f"environment.options.search_qa.corpus={tmp_path}/train-*.tar",
        f"run.directory={tmp_path}/runs",
    ]


def check(overrides: list[str], world_size: int = 1) -> Config:
    config = load_config(None, overrides)
    check_config(config, world_size=world_size)
    return config


def test_a_good_config_passes_and_keeps_its_types(settings) -> None:
    config = check([*settings, "precision.train=float32", "allocation.pool=96"])
    assert config.precision.train is Precision.float32
    assert config.allocation.pool == 96


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("allocation.bugdet=3", r"allocation.bugdet = 3: .*did you mean allocation.budget\?"),
        ("alocation.budget=3", r"alocation.budget = 3: .*did you mean allocation.budget\?"),
        ("run.steps=many", r"run.steps = 'many': must be of type int"),
        ("precision.train=fp4", r"precision.train = 'fp4': must be one of float32, bf16, fp8$"),
        ("learning=3", r"^learning = 3: is a section; write learning.name=value"),
        ("learning=[3]", r"^learning = \[3\]: is a section; write learning.name=value"),
        ("learning=", r"^learning = None: is a section; write learning.name=value"),
        ("learning.loss=", r"^learning.loss = None: is a section; write learning.loss.name=value"),
        ("run.name=${run.nme}", r"^run.name = '\${run.nme}': has no value: .*'run.nme' not found"),
        ("run.name=${oc.env:NO_SUCH_X}", r"^run.name = .*: has no value: .*'NO_SUCH_X' not found"),
        ("run.name=${run.name}", r"^run.name = '\${run.name}': has no value: Recursive"),
        ("run.name=${env:HOME}", r"^run.name = .*: has no value: Unsupported interpolation type"),
        ("run.name=a${b", r"^run.name = 'a\${b': cannot be read: "),
        ("learning.clip_low=${x}", r"^learning.clip_low = '\${x}': is now learning.loss.clip_low$"),
        ("rn={steps: '${x}'}", r"^rn.steps = '\${x}': no such setting; did you mean run.steps"),
        ("run.steps=???", r"^run.steps = '\?\?\?': must be set$"),
        (
            "allocation.options.trace.probe=???",
            r"^allocation.options.trace.probe = .*: must be set$",
        ),
        ("data.heldout=[1]", r"^data.heldout = \[1\]: must be of type dict\[str, Any\]$"),
        (
            "data.heldout={a: {b: c}}",
            r"^data.heldout.a.b = 'c': no such key; there is files, weight, map$",
        ),
        ("data.heldout={a: null}", r"^data.heldout.a = 'null': no such file: null"),
        ("allocation.options.trace={1: 2}", r"^allocation.options.trace.1 = .*: no such option"),
        ("run.loggers=[null]", r"^run.loggers = 'null': must be one of tensorboard"),
        ("=3", r"^override = '=3': write it as section.name=value"),
        ("run.loggers=[wandb", r"run.loggers = '\[wandb': is not YAML"),
        (
            "run.loggers=[wandbb]",
            r"run.loggers = 'wandbb': must be one of tensorboard, wandb, mlflow",
        ),
        ("run.name=..", r"run.name = '..': must be the name of a folder"),
        (
            "environment.options.search_qa.topk=3",
            r"environment.options.search_qa.topk = 3: .*did you mean \S+.search_qa.top_k\?",
        ),
        (
            "environment.options.top_k=3",
            r"environment.options.top_k = 3: is now \S+.search_qa.top_k",
        ),
        ("environment.name=search", r"environment.name = 'search': .*did you mean search_qa\?"),
        ("environment.options.search_qa.top_k=0", r"search_qa.top_k = 0: must be at least 1"),
        ("environment.options.search_qa.top_k=few", r"top_k = 'few': must be of type int"),
        (
            "environment.options.search_qa.corpus=nowhere-*.tar",
            r"environment.options.search_qa.corpus = 'nowhere-\*.tar': no such file",
        ),
        ("run.steps=a\tb", r"run.steps = 'a\\tb': "),
        ("run.seed=99999999999999999999", r"run.seed = 9+: must be at least 0 and below 1e\+18"),
        ("rollout.block_size=24", r"rollout.block_size = 24: must be a multiple of 16"),
        ("run.steps=0", r"run.steps = 0: must be at least 1"),
        (
            "learning.loss.clip_low=1.5",
            r"learning.loss.clip_low = 1.5: must be above 0 and below 1",
        ),
        ("allocation.bare_share=0", r"allocation.bare_share = 0.0: must be above 0 and at most 1"),
        (
            "allocation.options.trace.probe=300",
            r"allocation.budget = 256: must pay for 300 rollouts",
        ),
        (
            "allocation.strategy=tracee",
            r"allocation.strategy = 'tracee': no such strategy; did you mean trace\?",
        ),
        ("allocation.pool=0", r"allocation.pool = 0: must be at least 1"),
        (
            "parallel.tensor=3",
            r"parallel.tensor = 3: must divide the model's num_attention_heads \(8\)",
        ),
        (
            "parallel.tensor=8",
            r"parallel.tensor = 8: must divide the model's num_key_value_heads \(4\)",
        ),
        (
            "parallel.pipeline=3",
            r"parallel.pipeline = 3: must divide the model's num_hidden_layers \(4\)",
        ),
        ("parallel.tensor=2", r"parallel.tensor = 2: .* must divide the single train rank"),
        ("parallel.expert=2", r"parallel.expert = 2: the model has no experts"),
        ("data.train=nowhere-*.tar", r"data.train = 'nowhere-\*.tar': no such file"),
        ("data.map=gone.py:f", r"data.map = '/.*/gone.py:f': no such file"),
        ("data.map=mine", r"data.map = 'mine': must be FILE.py:FUNCTION"),
        ("model.path=nowhere", r"model.path = 'nowhere': must be a HF model folder"),
        ("rollout.max_history_tokens=4096", r"rollout.max_history_tokens = 4096: .*1024 positions"),
        (
            "learning.batching.micro_batch_tokens=100",
            r"learning.batching.micro_batch_tokens = 100: .*rollout.max_history_tokens",
        ),
        ("precision.train=fp8", r"precision.train = 'fp8': needs"),
        ("noequals", r"override = 'noequals': write it as"),
    ],
)
def test_a_mistake_is_one_line_with_setting_value_and_remedy(settings, override, message) -> None:
    with pytest.raises(SettingError) as error:
        check([*settings, override])
    assert re.search(message, str(error.value))
    assert "\n" not in str(error.value)


def test_one_missing_part_of_a_brace_pattern_is_named(settings, tmp_path) -> None:
    with pytest.raises(SettingError, match=r"train-000001\.tar"):
        check([*settings, f"data.train={tmp_path}/train-{{000000..000001}}.tar"])


def test_uniform_budget_must_be_whole_groups(settings) -> None:
    with pytest.raises(
        SettingError, match=r"allocation.budget = 100: must be a multiple of allocation.group \(8\)"
    ):
        check([*settings, "allocation.strategy=uniform", "allocation.budget=100"])


@pytest.mark.parametrize("text", ["run: [", "- a list", "run: {steps: [1]}", "run:\n  stepps: 3\n"])
def test_a_broken_config_file_is_a_setting_error(settings, tmp_path, text) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(SettingError):
        load_config(str(tmp_path / "bad.yaml"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("# Tr\u00e4ce\n".encode("latin-1"), "is not UTF-8 text; save it as UTF-8$"),
        ("run: {}\n".encode("utf-16"), "is not UTF-8 text; save it as UTF-8$"),
        (b"run: {name: 'a${b'}", "cannot be read: .*a"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, data: bytes, message: str) -> None:
    (tmp_path / "bad.yaml").write_bytes(data)
    with pytest.raises(SettingError, match=rf"^--config = '.*bad.yaml': {message}") as error:
        load_config(str(tmp_path / "bad.yaml"))
    assert "\n" not in str(error.value)


def test_overrides_win_over_the_file(tmp_path) -> None:
    (tmp_path / "run.yaml").write_text("run: {steps: 5, seed: 3}\n")
    config = load_config(str(tmp_path / "run.yaml"), ["run.steps=7"])
    assert (config.run.steps, config.run.seed) == (7, 3)


def test_options_may_stand_between_settings(settings) -> None:
    command = parse_command([*settings, "run.steps=7", "--dry-run", "run.name=between"])
    assert command.dry_run
    assert (command.config.run.steps, command.config.run.name) == (7, "between")


def test_help_lists_every_setting_with_its_meaning(capsys) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse_command(["--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    for line in (
        "allocation.budget = 256",
        "a step's sampling budget, in allocation.unit",
        "stop.kl = None",
        "learning.advantage.options.gigpo.discount = 0.95   (above 0 and at most 1)",
        "environment.options.search_qa.top_k = 3   (at least 1)",
        "allocation.options.trace.probe = 2",
    ):
        assert line in text


def test_help_lists_the_options_of_a_file_that_the_settings_name(capsys, tmp_path) -> None:
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n\n"
        "@dataclass\nclass Options:\n    decay: float = 0.5\n\n"
        "def estimate(tree, settings, options): ...\n"
    )
    with pytest.raises(SystemExit):
        parse_command([f"learning.advantage.name={tmp_path}/mine.py", "--help"])
    assert "learning.advantage.options.mine.decay = 0.5" in capsys.readouterr().out


def test_replay_of_a_folder_without_trees_is_refused(settings, tmp_path) -> None:
    with pytest.raises(SettingError, match="holds no trees"):
        parse_command([*settings, "--replay", str(tmp_path)])


ODD = (
    "many",
    "a\tb",
    ".nan",
    "-.inf",
    "1e400",
    "-1",
    "0",
    "1.5",
    "1e30",
    "9" * 30,
    "[1]",
    "[null]",
)
ODD += ("{}", "{a: {b: c}}", "null", "true", "", "\0", "2026-01-01", "!!binary aGk=", "/dev/null")
OPTIONS = [
    f"{one.name}={value}"
    for kind in (STRATEGIES, ESTIMATORS, ENVIRONMENTS)
    for name in kind.names()
    for one in kind.all_options(name)
    for value in ODD
]
# The check of run.directory makes the folder.
OVERRIDES = [
    f"{one.name}={value}"
    for one in all_settings(Config())
    for value in ODD
    if one.name != "run.directory"
]


@given(st.sampled_from(OVERRIDES) | st.sampled_from(OPTIONS))
@examples(max_examples=60)
def test_any_setting_takes_an_odd_value_or_refuses_it_in_one_line(override: str) -> None:
    try:
        config = load_config("configs/geo_hop_cpu.yaml", ["run.directory=/dev/shm", override])
        check_config(config, world_size=1)
    except SettingError as error:
        assert "\n" not in str(error)
        assert override.split(".")[0] in str(error)


@pytest.mark.parametrize("file", sorted(Path("configs").glob("*.yaml")), ids=lambda file: file.name)
def test_every_shipped_config_has_only_known_settings_of_the_right_type(file) -> None:
    load_config(str(file))


def test_what_only_a_machine_lacks_is_a_line_of_the_plan_and_no_wrong_setting(
    settings, monkeypatch
) -> None:
    monkeypatch.setitem(LIBRARIES, "mlflow", "no_such_library")
    config = load_config(None, [*settings, "run.loggers=[mlflow]"])
    config.environment.options = {}
    check_settings(config, world_size=1)
    said = "\n".join(problems_here(config).values())
    assert "run.loggers = 'mlflow': is not installed" in said
    assert "environment.options.search_qa.corpus = '': must name data files" in said
    with pytest.raises(SettingError, match=r"run.loggers = 'mlflow': is not installed"):
        check_config(config, world_size=1)


def test_a_dry_run_checks_the_tasks_where_they_can_be_read(tmp_path, capsys) -> None:
    write_shards([{"id": "t0", "question": "Who ?", "answers": []}], str(tmp_path / "a-%d.tar"))
    places = [f"data.train={tmp_path}/a-0.tar", "data.heldout={}", f"run.directory={tmp_path}/runs"]
    config = load_config("configs/geo_hop_cpu.yaml", places)
    assert not problems_here(config)
    with pytest.raises(SettingError, match=r"^data\.train = .*task t0: answers must be a list"):
        dry_run(config)
    good = {"id": "t1", "question": "Who ?", "answers": ["you"]}
    write_shards([good], str(tmp_path / "b-%d.tar"))
    config.data.train, config.data.on_bad = f"{tmp_path}/[ab]-0.tar", "skip"
    capsys.readouterr()
    assert dry_run(config) == 0
    assert "data.train: 1 skipped: " in capsys.readouterr().out
    config.data.train = "nowhere-*.tar"
    (problem,) = problems_here(config).values()
    assert "no such file" in problem
    assert dry_run(config) == 0


def test_settings_that_only_another_setting_gives_an_effect_may_stay(settings) -> None:
    check(
        [
            *settings,
            "learning.loss.importance_floor=0.5",
            "allocation.strategy=uniform",
            "allocation.bare_share=0.5",
        ]
    )
