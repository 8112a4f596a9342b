"""Behaviour cloning of a small start policy: the model, its batches, its training and its folder.

Used by the tools named make_*_policy.py.
"""

import argparse
import json
import math
import os
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import track
from transformers import DynamicCache, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from megatron_trace.files.atomic import whole_folder

Episode = tuple[list[int], list[bool]]
"""Token ids of a demonstration, and for each whether it is learnt."""

Batch = tuple[torch.Tensor, torch.Tensor]
"""Token ids and learn mask, both [batch, seq]."""

POOL = 256
"""Episodes that are drawn and sorted by length at a time."""

WORTH_SHARING = 64
"""Tokens from which on it pays to compute a common beginning apart."""

LAST_RATE = 0.02
"""Share of the peak learning rate at the end of the cosine."""


@dataclass(frozen=True)
class Size:
    """How large a model is.

    Attributes:
        hidden: numbers that stand for a token.
        layers: its layers.
    """

    hidden: int
    layers: int


def arguments(
    description: str | None, out: Path, noise: float | None, steps: int, peak: float, tokens: int
) -> argparse.Namespace:
    """The command line of a tool that makes a start policy; the arguments are its defaults.

    Args:
        description: the tool's docstring.
        noise: None for a demonstrator that never errs.
        peak: the highest learning rate.
        tokens: of a batch.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--seed", type=int, default=0)
    if noise is not None:
        parser.add_argument("--noise", type=float, default=noise)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--peak", type=float, default=peak, help="the highest learning rate")
    parser.add_argument("--tokens-per-batch", type=int, default=tokens)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    # A folder of the same purpose is replaced; another one is not ours to remove.
    if os.path.lexists(args.out) and not (args.out / "config.json").exists():
        parser.error(f"--out {args.out} exists and holds no model; it is not replaced")
    return args


def need(data: Path, tool: str) -> None:
    """End the program with a line if the folder `data` is missing; `tool` makes it.

    Raises:
        SystemExit: it is missing.
    """
    if not data.exists():
        raise SystemExit(f"{data}: no such folder; python tools/{tool}.py --out {data} makes it")


def new_model(tokenizer: PreTrainedTokenizerFast, size: Size, seed: int) -> Qwen3ForCausalLM:
    """A Qwen3 with tied embeddings for the vocabulary of `tokenizer`, in float32."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden,
        intermediate_size=3 * size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.hidden // 32,
        num_key_value_heads=size.hidden // 64,
        head_dim=32,
        max_position_embeddings=1_024,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        dtype=torch.float32,
    )
    return Qwen3ForCausalLM(config)


def begin_from(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    copied: Sequence[str],
    seed: int,
) -> None:
    """Give `model` the layers of the policy in `folder`, and what its tokens stand for.

    How to copy is learnt late and suddenly, so a policy that can is worth hours. Tokens that the
    older policy does not know are drawn with the mean and the covariance of those that it knows.

    Args:
        tokenizer: of `model`.
        folder: an HF folder of the same size, apart from the vocabulary; it can copy.
        copied: texts of single tokens that shall be copied; they are drawn as numbers are.
    """
    older = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = PreTrainedTokenizerFast.from_pretrained(folder).get_vocab()
    model.model.layers.load_state_dict(older.model.layers.state_dict())
    model.model.norm.load_state_dict(older.model.norm.state_dict())
    known = older.model.embed_tokens.weight.detach()
    generator = torch.Generator().manual_seed(seed)
    rows = drawn_like(known, len(tokenizer), generator)
    if copied:
        numbers = [row for token, row in ids.items() if re.fullmatch("Ġ[0-9]+", token)]
        alike = drawn_like(known[numbers], len(tokenizer), generator)
    for word in copied:
        (row,) = tokenizer.encode(word, add_special_tokens=False)
        rows[row] = alike[row]
    for token, row in tokenizer.get_vocab().items():
        # Here a number is the same token after a space and without one.
        same = ids.get(f"Ġ{token}" if token.isdigit() else token, ids.get(token))
        if same is not None:
            rows[row] = known[same]
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(rows)


def drawn_like(rows: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Normal numbers, [count, hidden], with the mean and the covariance of `rows`."""
    covariance = torch.cov(rows.T) + 1e-6 * torch.eye(rows.shape[1])
    drawn = torch.randn(count, rows.shape[1], generator=generator)
    return rows.mean(0) + drawn @ torch.linalg.cholesky(covariance).T


def batches(
    draw: Callable[[], Episode], tokens_per_batch: int, rng: random.Random
) -> Iterator[Batch]:
    """Endless batches of at most `tokens_per_batch` tokens, padding included."""
    while True:
        # Sorting a whole pool brings like lengths together. Shuffling the batches afterwards keeps
        # the optimizer from seeing all short tasks first.
        pool = sorted((draw() for _ in range(POOL)), key=lambda episode: len(episode[0]))
        groups: list[list[Episode]] = [[]]
        for episode in pool:
            if (len(groups[-1]) + 1) * len(episode[0]) > tokens_per_batch:
                groups.append([])
            groups[-1].append(episode)
        rng.shuffle(groups)
        for group in groups:
            yield padded(group)


def padded(episodes: list[Episode]) -> Batch:
    """Episodes padded on the right to the longest."""
    length = max(len(ids) for ids, _ in episodes)
    tokens, masks = [], []
    for ids, learn in episodes:
        missing = length - len(ids)
        tokens.append(ids + [0] * missing)
        masks.append(learn + [False] * missing)
    return torch.tensor(tokens), torch.tensor(masks)


def rate_at(step: int, steps: int, last: float = LAST_RATE) -> float:
    """The learning rate of `step` as a share of the peak: a linear warm-up, then a cosine to `last`."""
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    progress = (step - warm) / max(1, steps - warm)
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * progress))


def cross_entropy(model: Qwen3ForCausalLM, ids: torch.Tensor, learn: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of the learnt tokens (nats).

    Args:
        ids, learn: token ids and learn mask, [batch, seq].
    """
    targets = learn[:, 1:]
    # Without AVX-512 bfloat16 is emulated, which takes 18 times as long as float32.
    in_hardware = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    with torch.autocast("cpu", torch.bfloat16, enabled=in_hardware):
        # What all begin with, such as the schemas of tools, is computed once.
        shared, cache = shared_length(ids, learn), DynamicCache()
        if shared >= WORTH_SHARING:
            model.model(input_ids=ids[:1, :shared], past_key_values=cache, use_cache=True)
            cache.batch_repeat_interleave(len(ids))
        else:
            shared, cache = 0, None
        hidden = model.model(
            input_ids=ids[:, shared:-1], past_key_values=cache, use_cache=cache is not None
        ).last_hidden_state
        # Logits are computed only where something is learnt: the output layer is a large part of
        # the work.
        logits = model.lm_head(hidden[targets[:, shared:]])
    return torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:][targets])


def shared_length(ids: torch.Tensor, learn: torch.Tensor) -> int:
    """How many tokens all rows begin with, the one before the first learnt token not among them.

    Args:
        ids, learn: token ids and learn mask, [batch, seq].
    """
    differs = (ids != ids[:1]).any(dim=0) | learn.any(dim=0)
    return max(0, int(differs.int().argmax()) - 1) if differs.any() else 0


def train(
    model: Qwen3ForCausalLM,
    stream: Iterator[Batch],
    steps: int,
    peak: float,
    title: str,
    last: float = LAST_RATE,
) -> None:
    """Take `steps` AdamW steps with a warm-up and a cosine from the learning rate `peak`.

    Args:
        last: share of the peak at the end; 1 keeps the rate.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    model.train()
    seen, mean_loss = 0, 0.0
    for step in track(range(steps), description=title):
        for group in optimizer.param_groups:
            group["lr"] = peak * rate_at(step, steps, last)
        ids, learn = next(stream)
        loss = cross_entropy(model, ids, learn)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seen += ids.numel()
        # The loss of one batch is noisy; what is printed is its moving average.
        mean_loss = loss.item() if step == 0 else 0.95 * mean_loss + 0.05 * loss.item()
        if step % 50 == 49 or step == steps - 1:
            counts = f"step {step + 1}/{steps}, {seen / 1e6:.2f} M tokens"
            print(f"{title}: {counts}, loss {mean_loss:.4f}", flush=True)


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write an HF folder with float16 weights and a config that asks for float32.

    An older folder is replaced as a whole: its predictor belongs to other weights.
    """
    half = Qwen3ForCausalLM(model.config)
    half.load_state_dict(model.state_dict())
    with whole_folder(folder) as partial:
        half.half().save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        config = json.loads((partial / "config.json").read_text()) | {"dtype": "float32"}
        (partial / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        for file in partial.iterdir():
            file.chmod(0o644)
