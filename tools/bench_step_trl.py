"""TRL's side of tools/bench_step.py: PYTHON_WITH_TRL tools/bench_step_trl.py WORK.json"""

import sys
import time
from typing import Any

from bench_sides import Stopwatch, next_turn, say
from bench_step_work import CLIP_HIGH, CLIP_LOW, LEARNING_RATE, Work, prompt, read_work, reward
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


def rewards(completions: list[Any], **_: Any) -> list[float]:
    """Of every rollout; a rollout is a chat of one message."""
    return [reward(completion[0]["content"]) for completion in completions]


class TimedTrainer(GRPOTrainer):
    """Times sampling, and lets no token end a rollout.

    Attributes:
        sampling: seconds of the last sampling.
        prompt_tokens: of all rollouts of the last sampling.
    """

    sampling = 0.0
    prompt_tokens = 0

    def sample_fixed_length(self) -> None:
        """Sample `max_completion_length` tokens in every rollout, whatever they are."""
        no_token = -1
        self.eos_token_ids = [no_token]
        # `generate` takes from the model's settings what is None in the trainer's.
        self.generation_config.eos_token_id = None
        self.model.generation_config.eos_token_id = None

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        begin = time.perf_counter()
        result = super()._generate_and_score_completions(inputs)
        self.sampling = time.perf_counter() - begin
        self.prompt_tokens = int(result["prompt_mask"].sum())
        return result


class Turns(TrainerCallback):
    """Begins a step when the bench asks for it, and reports when it is taken."""

    def __init__(self, work: Work, trainer: TimedTrainer) -> None:
        """Of a trainer that has not begun."""
        self._work, self._trainer = work, trainer

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """All is loaded."""
        # Not before: `train` sets the model's end token to that of the tokenizer.
        self._trainer.sample_fixed_length()
        say({})

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Wait for the bench."""
        if not next_turn():
            raise SystemExit
        self._watch = Stopwatch()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """The optimizer has updated the weights; the metrics come next."""
        self._times = self._watch.times()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any, **_: Any) -> None:
        """Report the step."""
        # The last log is of the whole training, when the bench has all its steps.
        if "entropy" not in logs:
            return
        report = {
            "sampling": self._trainer.sampling,
            "learning": self._times["seconds"] - self._trainer.sampling,
            "weights": 0.0,
            "sampled_tokens": round(logs["completions/mean_length"] * self._work.rollouts),
            "prompt_tokens": self._trainer.prompt_tokens,
            "reward": logs["reward"],
            "entropy": logs["entropy"],
            "gradient_norm": logs["grad_norm"],
        }
        say(report | self._times)


def settings(work: Work) -> GRPOConfig:
    """GRPO in float32 with one optimizer update a step; what is not named is TRL's default."""
    return GRPOConfig(
        output_dir="/tmp/bench_step_trl",
        per_device_train_batch_size=work.trl_batch,
        gradient_accumulation_steps=work.rollouts // work.trl_batch,
        num_generations=work.group,
        max_completion_length=work.tokens,
        max_steps=work.steps,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        epsilon=CLIP_LOW,
        epsilon_high=CLIP_HIGH,
        shuffle_dataset=False,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def main() -> None:
    """Load the model, then take a step for each turn."""
    work = read_work(sys.argv[1])
    prompts = [{"prompt": prompt(question)} for question in work.questions]
    trainer = TimedTrainer(
        model=work.model,
        reward_funcs=rewards,
        args=settings(work),
        train_dataset=Dataset.from_list(prompts),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Turns(work, trainer))
    trainer.train()


if __name__ == "__main__":
    main()
