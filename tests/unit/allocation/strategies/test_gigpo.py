from megatron_trace.allocation import make_strategy
from megatron_trace.config import AllocationConfig
from tests.unit.allocation.views import planning_view, roots


def test_it_samples_as_uniform_and_learns_otherwise() -> None:
    view = planning_view(roots(0.0, 0.5, 1.0), total=24)
    gigpo, uniform = (
        make_strategy(AllocationConfig(strategy=name, budget=24)) for name in ("gigpo", "uniform")
    )
    assert (
        gigpo.plan(view) == uniform.plan(view)
        and gigpo.candidates(24) == uniform.candidates(24) == 3
    )
    assert (gigpo.advantage, uniform.advantage) == ("gigpo", "grpo")
