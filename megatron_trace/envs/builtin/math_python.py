r"""Mathematics with Python as the tool (ToRA, arXiv 2309.17452): the policy calculates, then answers.

Its code runs in a sandbox, every call in a process of its own. The answer is in `\boxed{}`, or
follows "the answer is". The terminal reward is 1 where math-verify takes it for equal to the right
one, else 0. A task of a reasoning-gym family is scored by the family.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from megatron_trace.config import SettingError, setting
from megatron_trace.envs import reasoning_gym_tasks
from megatron_trace.envs.judge import Judge
from megatron_trace.envs.math_answers import MOST_CHARS, bare, equals, final_answer
from megatron_trace.envs.sandbox import Limits, Outcome, Sandbox, SandboxError
from megatron_trace.envs.tool_calls import Failed
from megatron_trace.envs.tool_environment import ToolEnvironment, tool
from megatron_trace.models.messages import ToolCall

INSTRUCTION = (
    "\n\nThink step by step. You may run Python code to calculate and to check. When you are sure, "
    r"end with your answer in \boxed{}."
)
"""What follows the question."""

NEEDED = {"math_verify": "'math-verify[antlr4_13_2]'", "pebble": "pebble"}
"""Module -> what to install."""

ENDINGS = {
    "timeout": "The code took too long and was ended.",
    "memory": "The code needed too much memory.",
    "killed": "The code was killed.",
    "output": "The code printed too much and was ended.",
}
"""How a call ended, in words; `error` is told by its trace."""


@dataclass(frozen=True)
class Shared:
    """What the episodes of a worker share."""

    sandbox: Sandbox
    judge: Judge


class MathPython(ToolEnvironment):
    """One question. Calls of the tool share nothing, so an episode has no state but its history."""

    retryable = (SandboxError,)

    @dataclass
    class Options(ToolEnvironment.Options):
        """The tool's limits, and the judge's."""

        tool_timeout_s: float = setting(
            300.0, "seconds that a call may take, with waiting for its turn", above=0
        )
        instruction: str = setting(INSTRUCTION, "text after the question")
        python_cpu_s: int = setting(5, "CPU seconds of a call", at_least=1)
        python_memory_mib: int = setting(1024, "address space of a call in MiB", at_least=256)
        python_at_once: int = setting(16, "calls that run at once in a worker", at_least=1)
        isolation: str = setting(
            "namespaces", "of the sandbox; `process` is weaker", one_of=("namespaces", "process")
        )
        judge_cpu_s: float = setting(
            10.0, "CPU seconds in which an answer is judged; after them it is wrong", above=0
        )
        judge_memory_mib: int = setting(
            2048, "address space of a judging process in MiB", at_least=512
        )
        judges: int = setting(2, "answers that are judged at once in a worker", at_least=1)

    @classmethod
    def load(cls, options: Options) -> Shared:
        """The sandbox, and the judge.

        Raises:
            SettingError: a package is missing, or the sandbox cannot start.
        """
        for module, packages in NEEDED.items():
            if find_spec(module) is None:
                remedy = f"needs {module}: pip install {packages}"
                raise SettingError("environment.name", "math_python", remedy)
        limits = Limits(cpu_s=options.python_cpu_s, memory_mib=options.python_memory_mib)
        try:
            sandbox = Sandbox(limits, options.python_at_once, options.isolation)  # type: ignore[arg-type]
        except SandboxError as error:
            name = "environment.options.math_python.isolation"
            raise SettingError(name, options.isolation, str(error)) from None
        return Shared(sandbox, Judge(options.judges, options.judge_cpu_s, options.judge_memory_mib))

    def check_task(self, task: Mapping[str, Any]) -> None:
        """Refuse a task without a question, or without an answer that can be compared.

        Raises:
            ValueError: what is wrong.
        """
        question = task.get("question")
        if not isinstance(question, str) or not question.strip():
            raise ValueError(f"question must be a text, not {question!r}")
        if "reasoning_gym" in task:
            reasoning_gym_tasks.check(task["reasoning_gym"])
            return
        answer = task.get("answer")
        if not isinstance(answer, str) or not bare(answer):
            raise ValueError(f"answer must be a text (LaTeX), not {answer!r}")
        if len(bare(answer)) > MOST_CHARS:
            raise ValueError(f"answer has {len(answer)} characters; at most {MOST_CHARS} can be")

    def start(self, task: Mapping[str, Any]) -> str:
        """The question."""
        return task["question"] + self.options.instruction

    def score(self, answer: str) -> float:
        """Whether the answer of a reply is right; what a family gives, where the task has one."""
        found = final_answer(answer)
        if found is None:
            return 0.0
        if "reasoning_gym" in self.task:
            entry = self.task["reasoning_gym"]
            scored = self.shared.judge.call(reasoning_gym_tasks.score, found, entry)
            return float(scored or 0.0)
        # The rule of length is for what a policy wrote: parsing long texts is slow.
        if len(found) > MOST_CHARS:
            return 0.0
        right = bare(self.task["answer"])
        return float(bool(self.shared.judge.call(equals, bare(found), right)))

    @tool
    def python(self, code: str) -> str:
        """Run Python code and read what it prints. Every call has a fresh state: nothing of an earlier
        call is known. numpy and sympy can be imported. There is no network.

        Args:
            code: the code; use print to see a result.
        """
        return told(self.shared.sandbox.run(code))

    def _result(self, call: ToolCall) -> Any:
        """What a call brought.

        Raises:
            SandboxError: the sandbox does not work. That is no fault of the policy, which must not
                learn from it.
        """
        result = super()._result(call)
        # What the code prints and raises is a text, so it cannot look like this.
        if isinstance(result, Failed) and result.why.startswith(SandboxError.__name__):
            raise SandboxError(result.why)
        return result


def told(outcome: Outcome) -> str:
    """What the policy reads of a call: what was printed, then how it failed."""
    parts = [outcome.stdout.strip("\n")]
    if outcome.status == "error":
        parts.append(outcome.stderr.strip("\n") or "The code ended with an error.")
    elif outcome.status != "ok":
        parts.append(ENDINGS[outcome.status])
    text = "\n".join(part for part in parts if part)
    return text or "The code printed nothing."
