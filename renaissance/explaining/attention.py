"""Attention probabilities of modules while they run, whatever computes them.

`scaled_dot_product_attention` gives no probabilities: they are computed again from its queries and keys. What
`nn.MultiheadAttention` runs is asked for its weights. Attention that is written out gives them as what a softmax over
the last of four axes returns. No module is changed for it.

Letters in shapes: B inputs, H heads, N queries, M keys, D channels of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_SOFTMAX = frozenset({torch.softmax, F.softmax, Tensor.softmax})

# by module, the probabilities [B, H, N, M] of each attention that ran inside of it, in their order
Maps = dict[nn.Module, list[Tensor]]


@contextmanager
def recorded(modules: Iterable[nn.Module]) -> Iterator[Maps]:
    """Give the attention probabilities of these modules, none of them inside of another, filled as they run."""
    maps: Maps = {module: [] for module in modules}
    inside: list[nn.Module] = []

    def enter(module: nn.Module, arguments: Any) -> None:
        inside.append(module)

    def leave(module: nn.Module, arguments: Any, output: Any) -> None:
        inside.pop()

    hooks = [module.register_forward_pre_hook(enter) for module in maps]
    hooks += [module.register_forward_hook(leave, always_call=True) for module in maps]
    try:
        with _Watching(lambda found: maps[inside[-1]].append(found.detach()) if inside else None):
            yield maps
    finally:
        for hook in hooks:
            hook.remove()


class _Watching(TorchFunctionMode):
    """Tells of all attention probabilities that are computed meanwhile."""

    def __init__(self, tell: Callable[[Tensor], None]) -> None:
        super().__init__()
        self._tell = tell

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if func is F.multi_head_attention_forward:  # what it calls is not seen from here
            return self._asked(args, named)
        output = func(*args, **named)
        if func is F.scaled_dot_product_attention:
            self._tell(probabilities(*args, **named))
        elif func in _SOFTMAX and output.dim() == 4 and _over_keys(args, named):
            self._tell(output)
        return output

    def _asked(self, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Return what attention over several heads gives, with its weights only where they were asked for."""
        asked, mean = named.get("need_weights", True), named.get("average_attn_weights", True)
        each = {**named, "need_weights": True, "average_attn_weights": False}
        output, weights = F.multi_head_attention_forward(*args, **each)
        assert weights is not None
        self._tell(weights)
        return output, (weights.mean(-3) if mean else weights) if asked else None


def _over_keys(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> bool:
    axis = named.get("dim", arguments[1] if len(arguments) > 1 else None)
    return axis in (-1, 3)


def probabilities(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return the probabilities [B, H, N, M] by which `scaled_dot_product_attention` mixes the values.

    query [B, H, N, D]; key [B, H, M, D], of fewer heads with `enable_gqa`. A query that may attend to nothing has 0.
    """
    if enable_gqa:
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    logits = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
        logits = logits.masked_fill(later, -math.inf)
    if attn_mask is not None:
        allowed = attn_mask.dtype == torch.bool
        logits = logits.masked_fill(~attn_mask, -math.inf) if allowed else logits + attn_mask
    return logits.softmax(-1).nan_to_num(0.0)
