from megatron_trace.compare.collect import prune, record_of_run
from megatron_trace.compare.grid import Trial, strategy_variant
from megatron_trace.report.metrics_file import MetricsWriter
from tests.unit.report.fake_run import fake_run

TRIAL = Trial(strategy_variant("trace"), 64, 0)


def test_a_records_evaluations_stand_at_what_was_sampled_before_them(tmp_path) -> None:
    with MetricsWriter(tmp_path) as writer:
        writer.write(
            {"step": 0, "evaluation": {"a": 0.25, "mean": 0.25}, "evaluation_standard_error": 0.1}
        )
        for step in (1, 2, 3):
            spent = {"bare_rollouts": 10, "continuations": step, "sampled_tokens": 100 * step}
            times = {"time/learning": 1.5, "time/bare rollouts": 0.5}
            writer.write({"step": step, "effective_ratio": 0.5, **spent, **times})
            if step == 2:
                writer.write(
                    {"step": 2, "evaluation": {"a": 0.5, "mean": 0.5}, "time/evaluation": 9.0}
                )
    found = record_of_run(TRIAL, tmp_path, {})
    assert found.evaluations["rollouts"] == [0, 23] and found.evaluations["tokens"] == [0, 300]
    assert found.evaluations["success"] == found.evaluations["a"] == [0.25, 0.5]
    assert found.steps["rollouts"] == [11, 12, 13] and found.steps["seconds"] == [2.0, 2.0, 2.0]


def test_a_metric_that_a_step_lacks_is_none_there(tmp_path) -> None:
    with MetricsWriter(tmp_path) as writer:
        for step, more in ((1, {}), (2, {"predictor_auc_root": 0.7, "gradient_norm": 1.0})):
            writer.write(
                {"step": step, "bare_rollouts": 8, "continuations": 0, "sampled_tokens": 9, **more}
            )
    steps = record_of_run(TRIAL, tmp_path, {}).steps
    assert steps["predictor_auc_root"] == [None, 0.7] and steps["gradient_norm"] == [None, 1.0]


def test_what_is_large_of_a_run_is_removed_and_its_numbers_stay(tmp_path) -> None:
    run_dir = fake_run(tmp_path / "run", steps=2)
    (run_dir / "checkpoints" / "step_00002").mkdir(parents=True)
    prune(run_dir)
    assert {path.name for path in run_dir.iterdir()} == {"config.yaml", "metrics.jsonl"}
