"""A model to convert, as its config.json describes it; used by both directions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from megatron_trace.models.architecture import check_architecture
from megatron_trace.models.weight_map import expand, family_of, shape_of
from megatron_trace.models.weight_rules import Shape, WeightRow
from megatron_trace.policy.convert.locations import Location, layer_of, locate, stacks_layers
from megatron_trace.policy.hf import read_config

OnProgress = Callable[[int, int], None]
"""Called after each layer: how many parts (embedding, layers, output) are done, of how many."""

Located = tuple[WeightRow, Location]
"""A row of the weight map, and where its parameter lies in the checkpoint."""


@dataclass(frozen=True)
class Converted:
    """What was done.

    Attributes:
        tensors, size: number and bytes of the model's HF tensors.
        remark: what the user should know, or "".
    """

    tensors: int
    size: int
    remark: str = ""


@dataclass(frozen=True)
class Model:
    """A model as its config.json describes it, found in `folder`.

    Attributes:
        folder: with config.json and tokenizer.
        config: config.json.
        rows: all rows of the model's weight map.
        sizes: what the rows' rules need.
        tied: the output layer is the embedding.
    """

    folder: Path
    config: dict[str, Any]
    rows: list[WeightRow]
    sizes: Shape
    tied: bool

    @classmethod
    def of(cls, folder: Path) -> "Model":
        """Read `folder`/config.json.

        Raises:
            ValueError: the model is not supported, or config.json lacks a size; the message says
                which.
        """
        config = read_config(folder)
        try:
            check_architecture(config)
            tied = bool(config.get("tie_word_embeddings", False))
            rows = expand(family_of(config["model_type"]), config, tied=tied)
            model = cls(folder, config, rows, shape_of(config), tied)
            # Every size that a location needs is read here, so a missing one is named at once.
            model.located(stacked=stacks_layers(config))
        except KeyError as error:
            raise ValueError(f"{folder / 'config.json'} lacks {error.args[0]}") from None
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from None
        return model

    def located(self, *, stacked: bool) -> list[Located]:
        """All rows, in order, with their locations.

        Args:
            stacked: the checkpoint stacks equal layers.
        """
        return [(row, locate(row, self.config, stacked=stacked)) for row in self.rows]


def by_layer(located: Sequence[Located]) -> list[list[Located]]:
    """The rows in parts: embedding, layer after layer, final norm and output layer."""
    return [list(part) for _, part in groupby(located, key=lambda pair: layer_of(pair[0]))]


def check_names(where: str, wanted: set[str], present: set[str]) -> None:
    """Refuse a folder or checkpoint whose tensors are not exactly the model's.

    Raises:
        ValueError: a tensor is missing or has no place in the model; the message names it.
    """
    if missing := sorted(wanted - present):
        raise ValueError(
            f"{where} lacks {len(missing)} tensors of the model, the first {missing[0]}"
        )
    if extra := sorted(present - wanted):
        raise ValueError(
            f"{where} holds {len(extra)} tensors that the model has no place for, the first {extra[0]}"
        )
