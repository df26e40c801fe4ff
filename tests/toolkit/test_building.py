"""Which parts of a model are left out, as none of what it gives depends on them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from renaissance.toolkit.building import drop_parts, unused_parts


class Routed(nn.Module):
    """Gives a token to one of its experts; has a head that nothing uses, and a norm in a list of other things."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleDict({f"expert_{number}": nn.Linear(4, 4) for number in range(3)})
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(4)) for _ in range(3))
        self.others = nn.ModuleList([nn.Linear(4, 4), nn.LayerNorm(4)])
        self.heads = nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 2)])
        self.pooler = nn.Linear(4, 4)

    def forward(self, token: Tensor) -> Tensor:
        chosen = int(token.sum()) % 3
        hidden: Tensor = self.others[0](self.experts[f"expert_{chosen}"](token) * self.scales[chosen])
        return hidden


def test_what_nothing_depends_on_is_named_by_its_largest_parts() -> None:
    model = Routed()
    assert unused_parts(model, (model(torch.ones(4)),)) == ("others.1", "heads", "pooler")


def test_members_of_a_list_that_another_input_chooses_stay() -> None:
    model = Routed()
    tokens = [torch.full((4,), float(number)) for number in (1, 2, 3)]
    expected = [model(token) for token in tokens]
    drop_parts(model, unused_parts(model, (model(tokens[0]),)))
    assert all(torch.equal(model(token), was) for token, was in zip(tokens, expected, strict=True))
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"experts", "scales", "others"}
