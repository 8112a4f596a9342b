"""The policy as a Megatron-Core model: this rank's layers, and the predictor on the last stage."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import (
    gather_from_sequence_parallel_region,
    reduce_from_tensor_model_parallel_region,
)
from torch import Tensor

from megatron_trace.config import Config
from megatron_trace.learning.batches import Batch
from megatron_trace.models.architecture import check_architecture, padded_vocabulary
from megatron_trace.models.folders import hf_assets_dir, is_checkpoint
from megatron_trace.models.predictor import PredictorHead, load_predictor
from megatron_trace.models.weight_map import expand, family_of, shape_of
from megatron_trace.policy.context import local_index, own_tokens
from megatron_trace.policy.distributed import ParallelState
from megatron_trace.policy.hf import HFReader, read_config
from megatron_trace.policy.layer_spec import block_spec
from megatron_trace.policy.megatron_config import transformer_config
from megatron_trace.policy.precision import parameter_dtype, uses_transformer_engine
from megatron_trace.policy.rope import RotaryByPosition, rotary_frequencies, scale_rotation
from megatron_trace.policy.spans import described
from megatron_trace.policy.vocab_parallel import vocab_parallel_logprob
from megatron_trace.policy.weights import ModelWeights


@dataclass
class Scores:
    """What the last stage computes for a micro-batch's n learned tokens and m anchors.

    Attributes:
        logprob: of the learned tokens, with gradient, float32 [n].
        entropy: of the policy at these tokens in nats, float32 [n]; with gradient where there is an
            entropy bonus.
        prediction: the predictor's logits at the anchors, without gradient, float32 [m].
        hidden: the final hidden states there, from which the predictor learns; without gradient,
            float32 [m, hidden].
    """

    logprob: Tensor
    entropy: Tensor
    prediction: Tensor
    hidden: Tensor


class PolicyModel(GPTModel):
    """GPTModel that returns scores of chosen tokens instead of all logits."""

    predictor: PredictorHead

    def __init__(
        self, *, real_vocabulary: int, temperature: float, entropy_gradient: bool, **arguments: Any
    ) -> None:
        """As GPTModel; `real_vocabulary` tokens are real, the rest of `vocab_size` is padding."""
        super().__init__(**arguments)
        self.entropy_gradient = entropy_gradient
        self.real_vocabulary, self.temperature = real_vocabulary, temperature
        self.context = parallel_state.get_context_parallel_group()
        if self.config.sequence_parallel and self.post_process:
            # Megatron's output layer would gather the sequence itself. Here `forward` gathers it
            # and picks positions, so the layer sees the same input on all tensor-parallel ranks.
            self.output_layer.sequence_parallel, self.output_layer.allreduce_dgrad = False, True

    def forward(self, batch: Batch) -> Scores | Tensor:  # type: ignore[override]
        """Run this stage on a micro-batch. Stages before the last return states [s, 1, hidden].

        Only hidden states before a learned token reach the output layer, and only those at an
        anchor reach the predictor. With context parallelism each rank runs its own tokens, and all
        get all scores.
        """
        total = len(batch.position)
        own = own_tokens(total, self.context.rank(), self.context.size()).to(batch.tokens.device)
        position = batch.position[own]
        self.rotary_pos_emb.position = position
        hidden = super().forward(
            input_ids=batch.tokens[:, own],
            position_ids=position[None],
            attention_mask=described(batch.starts, batch.shared),
        )
        if not self.post_process:
            return hidden
        if self.config.sequence_parallel:
            hidden = gather_from_sequence_parallel_region(hidden, tensor_parallel_output_grad=False)
        hidden, local = hidden.squeeze(1), local_index(own, total)
        logprob, entropy = self._everywhere(
            local[batch.score_at],
            lambda at, chosen: self._logprob(hidden[at], batch.scored[chosen]),
        )
        with torch.no_grad():
            anchors = self._states(hidden, local[batch.predict_at])
            prediction = self.predictor(anchors)
        return Scores(logprob[batch.term], entropy[batch.term], prediction, anchors)

    def _states(self, hidden: Tensor, local: Tensor) -> Tensor:
        """The hidden states [m, hidden] at `local` [m], float32.

        With context parallelism they come from whichever rank has them; `local` is −1 on the
        others.
        """
        states = torch.where(local[:, None] >= 0, hidden[local].float(), 0.0)
        if self.context.size() == 1:
            return states
        return reduce_from_tensor_model_parallel_region(states, self.context)

    def _everywhere(
        self, local: Tensor, score: Callable[[Tensor, Tensor], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """The scores of this rank's hidden states and, with context parallelism, of other ranks'.

        Args:
            local: index of the hidden state that each of the n scores comes from, [n]; −1 for
                another rank's.
            score: scores from such indices, and from the numbers of these scores among the n.
        """
        if self.context.size() == 1:
            return score(local, torch.arange(len(local), device=local.device))
        chosen = torch.nonzero(local >= 0).squeeze(1)
        parts = [
            values.new_zeros(len(local)).index_put((chosen,), values)
            for values in score(local[chosen], chosen)
        ]
        # Each score is set on one rank, so the sum gathers them. This function passes the gradient
        # on unreduced. That is right here: every rank computes the same loss from all scores, so
        # each rank already has the whole gradient of its own scores.
        return reduce_from_tensor_model_parallel_region(torch.stack(parts), self.context).unbind()

    def _logprob(self, before: Tensor, scored: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy of tokens `scored` [u] from the states before, [u, hidden]."""
        weight = (
            self.shared_embedding_or_output_weight()
            if self.share_embeddings_and_output_weights
            else None
        )
        logits, _ = self.output_layer(before.unsqueeze(1), weight=weight)
        logits = logits.squeeze(1)
        group = parallel_state.get_tensor_model_parallel_group()
        return vocab_parallel_logprob(
            logits,
            scored,
            temperature=self.temperature,
            start=group.rank() * logits.shape[1],
            vocabulary=self.real_vocabulary,
            group=group,
            with_entropy_gradient=self.entropy_gradient,
        )

    def _postprocess(self, hidden_states: Tensor, **_: Any) -> Tensor:
        # GPTModel would compute the logits of every position here, most of which nobody needs.
        return hidden_states


def build_model(config: Config, parallel: ParallelState) -> tuple[list[PolicyModel], ModelWeights]:
    """This rank's parts of the policy at `model.path`, and what moves their weights.

    The weights of an HF folder are loaded; a checkpoint's are not, see `checkpoint.load_start`.
    """
    folder = Path(config.model.path)
    hf = read_config(hf_assets_dir(folder))
    check_architecture(hf)
    family, tied = family_of(hf["model_type"]), bool(hf.get("tie_word_embeddings", False))
    chunks = [make_model(hf, config, parallel, chunk) for chunk in range(parallel.chunks)]
    for chunk in chunks:
        if chunk.post_process:
            load_predictor(chunk.predictor, folder)
    weights = ModelWeights(chunks, expand(family, hf, tied=tied), shape_of(hf), parallel, tied=tied)
    if not is_checkpoint(folder):
        weights.load(HFReader(folder))
    return chunks, weights


def make_model(
    hf: dict[str, Any], config: Config, parallel: ParallelState, chunk: int
) -> PolicyModel:
    """Part `chunk` of this rank's pipeline stage of the model of config.json, without weights."""
    megatron = transformer_config(hf, config, family_of(hf["model_type"]))
    frequencies, factor = rotary_frequencies(hf)
    scale_rotation(megatron, factor)
    megatron.apply_rope_fusion = factor == 1.0 and uses_transformer_engine(megatron.params_dtype)
    number = chunk if parallel.chunks > 1 else None
    model = PolicyModel(
        config=megatron,
        transformer_layer_spec=block_spec(megatron, number),
        vocab_size=padded_vocabulary(hf["vocab_size"]),
        real_vocabulary=hf["vocab_size"],
        temperature=config.rollout.temperature,
        entropy_gradient=config.learning.loss.entropy_bonus != 0,
        max_sequence_length=hf["max_position_embeddings"],
        pre_process=parallel.pipeline == 0 and chunk == 0,
        post_process=parallel.last_stage and chunk == parallel.chunks - 1,
        share_embeddings_and_output_weights=bool(hf.get("tie_word_embeddings", False)),
        position_embedding_type="rope",
        vp_stage=number,
    )
    model.rotary_pos_emb = RotaryByPosition(frequencies)
    if megatron.fp8_param:
        # A cast would turn FP8 parameters into ordinary ones.
        model.to(device=parallel.device)
    else:
        model.to(device=parallel.device, dtype=parameter_dtype(config.precision))
    if model.post_process:
        _add_predictor(model, config, parallel)
    return model


def _add_predictor(model: PolicyModel, config: Config, parallel: ParallelState) -> None:
    model.predictor = PredictorHead(model.config.hidden_size).to(parallel.device)
    # `PredictorLearner` teaches the head. Megatron's wrapper and optimizer leave out parameters
    # without gradients.
    model.predictor.requires_grad_(False)
