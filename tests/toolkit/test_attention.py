from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from renaissance.toolkit.attention import Attention

FEW, MANY = 5, 60
WAYS = {(MANY, FEW): "_over_few", (FEW, MANY): "_of_few", (1, MANY): "_of_few", (MANY, MANY): "_plain"}


def attention(context_width: int | None = None) -> Attention:
    torch.manual_seed(0)
    built = Attention(32, 4, context_width=context_width).double()
    for tensor in built.parameters():
        nn.init.normal_(tensor, std=0.3)
    return built


def written_out(layer: Attention, queries: Tensor, context: Tensor, mask: Tensor) -> Tensor:
    """Attention as it is defined, one head after the other."""
    allowed = (mask if mask.dim() == 3 else mask[:, None]).expand(-1, queries.shape[1], -1)
    q, k, v = (part(given) for part, given in ((layer.query, queries), (layer.key, context), (layer.value, context)))
    heads = []
    for start in range(0, 32, 8):
        own = slice(start, start + 8)
        logits = (q[..., own] @ k[..., own].transpose(1, 2) / 8**0.5).masked_fill(~allowed, -torch.inf)
        heads.append(logits.softmax(-1).nan_to_num(0.0) @ v[..., own])
    output: Tensor = layer.output(torch.cat(heads, -1))
    return output


@pytest.mark.parametrize("wide", [None, 48])
@pytest.mark.parametrize("mask", ["of keys", "of queries and keys"])
@pytest.mark.parametrize(("queries", "keys"), WAYS)
def test_attention_and_its_gradients_are_those_of_the_definition(
    queries: int, keys: int, mask: str, wide: int | None
) -> None:
    layer = attention(wide)
    assert layer._cheapest(queries, keys).__name__ == WAYS[queries, keys]
    draws = torch.Generator().manual_seed(1)
    own, other = (
        torch.randn(3, count, width, dtype=torch.float64, generator=draws, requires_grad=True)
        for count, width in ((queries, 32), (keys, wide or 32))
    )
    shape = (3, keys) if mask == "of keys" else (3, queries, keys)
    allowed = torch.rand(shape, generator=draws) < 0.7
    allowed[1] = False  # of this item nothing may be attended to
    weights = torch.randn(3, queries, 32, dtype=torch.float64, generator=draws)
    found = []
    for compute in (layer, lambda *given: written_out(layer, *given)):
        output = compute(own, other, allowed)
        # the bias of the keys adds the same to all logits of a query: its gradient is zero but for rounding
        learned = [tensor for name, tensor in layer.named_parameters() if name != "key.bias"]
        found.append([output, *torch.autograd.grad((output * weights).sum(), [own, other, *learned])])
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("queries", "keys"), WAYS)
def test_the_cheapest_order_multiplies_the_least(queries: int, keys: int) -> None:
    layer = attention().float()
    own, other = torch.randn(2, queries, 32), torch.randn(2, keys, 32)
    allowed = torch.ones(2, 1, 1, keys, dtype=torch.bool)
    counts = {}
    for name in ("_plain", "_over_few", "_of_few"):
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as told:
            getattr(layer, name)(own, other, allowed)
        counts[name] = told.get_total_flops()
    assert min(counts, key=counts.__getitem__) == WAYS[queries, keys]


@pytest.mark.parametrize(("queries", "keys", "way"), [(64, 8, "_over_few"), (63, 8, "_plain"), (8, 63, "_plain")])
def test_a_cheaper_order_that_takes_more_memory_is_not_chosen(queries: int, keys: int, way: str) -> None:
    assert Attention(128, 8)._cheapest(queries, keys).__name__ == way


def test_parts_that_were_replaced_are_called() -> None:
    layer = attention().float()
    plain = layer(torch.ones(1, MANY, 32), torch.ones(1, FEW, 32), torch.ones(1, FEW, dtype=torch.bool))

    class Shifted(nn.Linear):
        def forward(self, values: Tensor) -> Tensor:
            return F.linear(values, self.weight, self.bias) + 1

    layer.output.__class__ = Shifted
    changed: Any = layer(torch.ones(1, MANY, 32), torch.ones(1, FEW, 32), torch.ones(1, FEW, dtype=torch.bool))
    torch.testing.assert_close(changed, plain + 1)


@pytest.mark.parametrize("autocast", [True, False])
def test_in_16_bits_nothing_is_rounded_once_more(autocast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = attention().to(torch.float32 if autocast else torch.bfloat16)
    monkeypatch.setattr(layer, "_over_few", None)
    dtype = layer.query.weight.dtype
    given = torch.ones(1, MANY, 32, dtype=dtype), torch.ones(1, FEW, 32, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert layer(*given, torch.ones(1, FEW, dtype=torch.bool)).dtype == torch.bfloat16
