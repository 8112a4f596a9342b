"""The measurement of a sandbox's calls."""

from megatron_trace.envs.sandbox import Outcome


class Instant:
    """A sandbox whose calls take no time."""

    def run(self, code: str) -> Outcome:
        return Outcome("", "", "ok")


def test_every_call_is_measured(load_tool) -> None:
    times = load_tool("bench_sandbox").measure(Instant(), "", calls=5, in_flight=2)
    assert len(times) == 5 and times == sorted(times)
