"""Make GeoHop's start policy: a small Qwen3 that clones first a competent, then a noisy demonstrator.

    python tools/make_start_policy.py --data data/geo_hop --out examples/geo_hop/start_policy --seed 0

The competent phase teaches the format and copying; the noisy phase teaches wrong decisions (never wrong
spelling), so that reinforcement learning has something to undo. `--competent DIR` keeps the rounds of
the first phase there, and goes on from those that exist already.
"""

import argparse
import json
import math
import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from geo_hop_demonstrator import (
    ENVIRONMENT,
    Demonstrator,
    Segment,
    names_from_titles,
    names_from_tokens,
    rename,
)
from rich.progress import track
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from megatron_trace.data.tasks import Task, load_tasks
from megatron_trace.envs.search_qa import SearchQA, search_qa_factory

VOCABULARY = 2_048
TAGS = ["<search>", "</search>", "<information>", "</information>", "<answer>", "</answer>"]
CONTROL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
RESERVED = ["<|predictor_0|>", "<|predictor_1|>"]
"""The last two rows of the vocabulary; no text ever holds them."""
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MAX_ACTION_TOKENS = 64

HOP_WEIGHTS = {"competent": (0.2, 0.35, 0.3, 0.15), "noisy": (0.2, 0.25, 0.3, 0.25)}
"""Share of tasks with 1, 2, 3 and 4 hops among the demonstrations."""


@dataclass(frozen=True)
class Round:
    """A run of steps with its own optimizer, warm-up and cosine.

    Attributes:
        steps: optimizer steps.
        peak: the learning rate after the warm-up.
        renamed: share of demonstrations whose names are replaced by invented ones, so that copying is general.
        pieces: what invented names are made of, `titles` (pieces of real names) or `tokens` (any that fit).
    """

    steps: int
    peak: float
    renamed: float
    pieces: str


COMPETENT_ROUNDS = (
    Round(1_600, 1.5e-3, renamed=0.5, pieces="titles"),
    Round(1_600, 1.5e-3, renamed=0.5, pieces="titles"),
    Round(1_400, 1.2e-3, renamed=0.9, pieces="tokens"),
)
NOISY_ROUND = Round(150, 2e-4, renamed=0.7, pieces="tokens")
"""Copying is learnt on names like the real ones first, then on all tokens, or it fails on those never said."""


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 2,048 tokens; the last eleven are the tags, the control tokens, the reserved rows.

    Raises:
        ValueError: `texts` are too few to fill the vocabulary.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    size = VOCABULARY - len(TAGS) - len(CONTROL) - len(RESERVED)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    bpe.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    bpe.add_special_tokens([AddedToken(token, normalized=False) for token in CONTROL + RESERVED])
    if bpe.get_vocab_size() != VOCABULARY or bpe.token_to_id(RESERVED[-1]) != VOCABULARY - 1:
        raise ValueError(f"the texts gave {bpe.get_vocab_size()} tokens instead of {VOCABULARY}")
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=1_024,
    )


def tokenizer_texts(demonstrator: Demonstrator, tasks: list[Task], seed: int) -> list[str]:
    """The texts of one demonstration of every task, without tags: what the tokenizer is trained on."""
    rng = random.Random(f"{seed}/tokenizer")
    shown = [segment.text for task in tasks for segment in demonstrator.play(task, rng)]
    return [re.sub("|".join(map(re.escape, TAGS)), "", text) for text in shown]


def prompt_ids(tokenizer: PreTrainedTokenizerFast, question: str) -> list[int]:
    """Token ids of the prompt, as the rollout makes them."""
    messages = [{"role": "user", "content": question}]
    return list(
        tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    )


def encode(
    tokenizer: PreTrainedTokenizerFast, segments: list[Segment]
) -> tuple[list[int], list[bool]]:
    """Ids of an episode, each segment tokenized on its own as in a rollout, and which of them are learnt."""
    ids: list[int] = []
    learn: list[bool] = []
    for segment in segments:
        if segment.kind == "question":
            piece = prompt_ids(tokenizer, segment.text)
        else:
            piece = tokenizer.encode(segment.text, add_special_tokens=False)
        ids += piece
        learn += [segment.learn] * len(piece)
    return ids, learn


def batches(
    draw: Callable[[], tuple[list[int], list[bool]]], tokens_per_batch: int, rng: random.Random
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches of episodes of like length: ids and learn mask, both [batch, seq]."""
    while True:
        pool = sorted((draw() for _ in range(256)), key=lambda episode: len(episode[0]))
        groups: list[list[tuple[list[int], list[bool]]]] = [[]]
        for episode in pool:
            if (len(groups[-1]) + 1) * len(episode[0]) > tokens_per_batch:
                groups.append([])
            groups[-1].append(episode)
        rng.shuffle(groups)
        for group in groups:
            length = max(len(ids) for ids, _ in group)
            yield (
                torch.tensor([ids + [0] * (length - len(ids)) for ids, _ in group]),
                torch.tensor([learn + [False] * (length - len(learn)) for _, learn in group]),
            )


def train(
    model: Qwen3ForCausalLM,
    stream: Iterator[tuple[torch.Tensor, torch.Tensor]],
    steps: int,
    peak: float,
    title: str,
) -> None:
    """AdamW on the learnt tokens' cross entropy, in bfloat16 autocast; warm-up, then a cosine."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    warm = max(1, steps // 20)
    model.train()
    seen, mean_loss = 0, 0.0
    for step in track(range(steps), description=title):
        progress = (step - warm) / max(1, steps - warm)
        rate = (
            (step + 1) / warm
            if step < warm
            else 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))
        )
        for group in optimizer.param_groups:
            group["lr"] = peak * rate
        ids, learn = next(stream)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state[
                learn[:, 1:]
            ]
            logits = model.lm_head(hidden)
        loss = torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:][learn[:, 1:]])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seen += ids.numel()
        mean_loss = loss.item() if step == 0 else 0.95 * mean_loss + 0.05 * loss.item()
        if step % 50 == 49 or step == steps - 1:
            print(
                f"{title}: step {step + 1}/{steps}, {seen / 1e6:.2f} M tokens, loss {mean_loss:.4f}",
                flush=True,
            )


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write an HF folder with float16 weights whose config asks for float32; made aside, then moved in."""
    partial = folder.with_name(folder.name + ".partial")
    half = Qwen3ForCausalLM(model.config)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    config = json.loads((partial / "config.json").read_text())
    (partial / "config.json").write_text(
        json.dumps(config | {"dtype": "float32"}, indent=2, sort_keys=True) + "\n"
    )
    folder.mkdir(parents=True, exist_ok=True)
    for file in partial.iterdir():
        file.chmod(0o644)
        file.replace(folder / file.name)
    partial.rmdir()


def evaluate(folder: Path, data: Path, seed: int) -> dict[str, Any]:
    """Sample every held-out task once at temperature 1 with vLLM: success by hops, lengths of the parts."""
    os.environ |= {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "HF_HUB_OFFLINE": "1",
    }
    from vllm import LLM, SamplingParams, TokensPrompt

    llm = LLM(
        str(folder),
        dtype="float32",
        enforce_eager=True,
        max_model_len=1_024,
        max_num_seqs=128,
        seed=seed,
    )
    tokenizer = llm.get_tokenizer()
    make = search_qa_factory(str(data / "corpus-*.tar"), **ENVIRONMENT)
    sampling = SamplingParams(
        max_tokens=MAX_ACTION_TOKENS, stop=list(SearchQA.stop), include_stop_str_in_output=True
    )
    tasks = load_tasks(str(data / "heldout_*-*.tar"))
    episodes = [make() for _ in tasks]
    histories = [
        prompt_ids(tokenizer, e.reset(t)[0]["content"])
        for e, t in zip(episodes, tasks, strict=True)
    ]
    lengths: dict[str, list[int]] = {
        "prompt": [len(h) for h in histories],
        "action": [],
        "observation": [],
    }
    rewards, malformed, live = [0.0] * len(tasks), 0, list(range(len(tasks)))
    while live:
        outputs = llm.generate(
            [TokensPrompt(prompt_token_ids=histories[n]) for n in live], sampling, use_tqdm=False
        )
        going = []
        for n, output in zip(live, outputs, strict=True):
            action = output.outputs[0]
            result = episodes[n].step(action.text)
            observation = tokenizer.encode(result.observation, add_special_tokens=False)
            histories[n] += [*action.token_ids, *observation]
            lengths["action"].append(len(action.token_ids))
            rewards[n], malformed = result.reward, malformed + result.malformed
            if not result.done:
                lengths["observation"].append(len(observation))
                going.append(n)
        live = going
    hops = sorted({task["hops"] for task in tasks})
    by_hops = {
        h: [r for r, task in zip(rewards, tasks, strict=True) if task["hops"] == h] for h in hops
    }
    success = {str(h): round(sum(values) / len(values), 3) for h, values in by_hops.items()}
    return {
        "success_by_hops": success,
        "success": round(sum(success.values()) / len(success), 3),
        "malformed": round(malformed / len(tasks), 3),
        "mean_tokens": {
            name: round(sum(values) / len(values), 1) for name, values in lengths.items()
        },
        "max_tokens": {name: max(values) for name, values in lengths.items()}
        | {"rollout": max(map(len, histories))},
        "mean_rollout_tokens": round(sum(map(len, histories)) / len(histories), 1),
        "rollouts": len(tasks),
    }


def new_model(seed: int) -> Qwen3ForCausalLM:
    """A Qwen3 of 3.7 M parameters with tied embeddings, in float32."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=1_024,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        eos_token_id=VOCABULARY - len(RESERVED) - 2,
        pad_token_id=VOCABULARY - len(RESERVED) - 1,
        bos_token_id=None,
        dtype=torch.float32,
    )
    return Qwen3ForCausalLM(config)


def main() -> None:
    """Parse the command line; clone the competent demonstrator, then the noisy one; measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path("data/geo_hop"), help="folder of build_geo_hop.py"
    )
    parser.add_argument("--out", type=Path, default=Path("examples/geo_hop/start_policy"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--competent",
        type=Path,
        default=Path("runs/geo_hop_competent"),
        help="first phase's rounds",
    )
    parser.add_argument(
        "--noise", type=float, default=0.33, help="error rate per turn in the noisy phase"
    )
    parser.add_argument("--tokens-per-batch", type=int, default=2_048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report", type=Path, help="where to write the measured success as JSON")
    parser.add_argument("--evaluate", type=Path, help="only measure the policy in this folder")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.evaluate is None:
        make_policy(args)
    report = evaluate(args.evaluate or args.out, args.data, args.seed)
    print(json.dumps(report, indent=2))
    if args.report:
        args.report.write_text(json.dumps(report, indent=2) + "\n")


def make_policy(args: argparse.Namespace) -> None:
    """Both phases; rounds of the first are skipped where their folders are there."""
    documents = load_tasks(str(args.data / "corpus-*.tar"))
    tasks = load_tasks(str(args.data / "train-*.tar"))
    world = {
        document["title"]: document["fields"] for document in documents if not document["heldout"]
    }
    by_hops = [[task for task in tasks if task["hops"] == hops] for hops in (1, 2, 3, 4)]
    make = search_qa_factory(str(args.data / "corpus-*.tar"), **ENVIRONMENT)

    def clone(name: str, phase: str, noise: float, plan: Round) -> None:
        rng = random.Random(f"{args.seed}/{name}")
        demonstrator = Demonstrator(make, world, noise)
        if plan.pieces == "titles":
            invent = names_from_titles(list(world))
        else:
            invent = names_from_tokens(list(tokenizer.get_vocab()))

        def draw() -> tuple[list[int], list[bool]]:
            task = rng.choice(rng.choices(by_hops, HOP_WEIGHTS[phase])[0])
            segments = demonstrator.play(task, rng)
            renamed = rng.random() < plan.renamed
            return encode(tokenizer, rename(segments, world, rng, invent) if renamed else segments)

        train(model, batches(draw, args.tokens_per_batch, rng), plan.steps, plan.peak, name)

    for number, plan in enumerate(COMPETENT_ROUNDS, 1):
        folder = args.competent / f"round_{number}"
        if not (folder / "config.json").exists():
            if number == 1:
                demonstrator = Demonstrator(make, world, noise=0.0)
                tokenizer = train_tokenizer(tokenizer_texts(demonstrator, tasks, args.seed))
                model = new_model(args.seed)
            clone("competent" if number == 1 else f"competent/{number}", "competent", 0.0, plan)
            save(model, tokenizer, folder)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    clone("noisy", "noisy", args.noise, NOISY_ROUND)
    save(model, tokenizer, args.out)


if __name__ == "__main__":
    main()
