"""Text encoders of `transformers` for longer texts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from renaissance.builtin.transformers_sizes import text_sizes

TABLES = ("position_embeddings", "position_embedding")
NEW_ROWS_STD = 0.02


@torch.no_grad()
def lengthen(model: nn.Module, size: int) -> tuple[Tensor, ...]:
    """Make a model take texts of `size` tokens, if it takes shorter ones only; return the parameters that are new.

    New rows of a position table are drawn from torch's global generator.
    """
    config: Any = model.config
    capacity = text_sizes(config).get("max_tokens")
    if capacity is None or size <= capacity:
        return ()
    old = config.max_position_embeddings
    config.max_position_embeddings = rows = old + size - capacity  # positions may begin with an offset
    if getattr(config, "max_relative_positions", 1) < 1:  # "as many as positions": distances stay as they are
        config.max_relative_positions = old
    _lengthen_buffers(model.get_submodule("embeddings"), rows)
    return tuple(_continued(table, rows) for table in position_tables(model))


def position_tables(model: nn.Module) -> list[nn.Embedding]:
    """Return the tables of positions that a model adds to its words."""
    embeddings = model.get_submodule("embeddings")
    return [table for name in TABLES if isinstance(table := getattr(embeddings, name, None), nn.Embedding)]


def _lengthen_buffers(embeddings: nn.Module, rows: int) -> None:
    buffers = dict(embeddings.named_buffers(recurse=False))
    if (positions := buffers.get("position_ids")) is not None:
        embeddings.position_ids = torch.arange(rows, device=positions.device).unsqueeze(0)
    if (segments := buffers.get("token_type_ids")) is not None:
        embeddings.token_type_ids = segments.new_zeros(1, rows)


def _continued(table: nn.Embedding, rows: int) -> Tensor:
    """Continue a table by new rows; return its weight [rows, D]."""
    old = table.weight
    new = old.new_empty(rows - len(old), old.shape[1]).normal_(std=NEW_ROWS_STD)
    table.weight = nn.Parameter(torch.cat([old, new]), requires_grad=old.requires_grad)
    table.num_embeddings = rows
    return table.weight
