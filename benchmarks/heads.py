"""One forward and backward pass of fusion heads of renaissance, beside the layers of `transformers` that do the same.

python benchmarks/heads.py [--pairs N] [--batch N] [--size full|tiny]

In one process and on one thread, in turns. That both compute the same is tested in tests/parity/test_heads.py; here
every layer gives both streams, texts are padded to their batch's longest, and there is no dropout.

Letters in shapes: P pairs, N tokens of images, L of texts, W width.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from paired import table, take_turns
from torch import Tensor, nn
from transformers import BridgeTowerConfig, BridgeTowerTextConfig, LxmertConfig
from transformers.models.bridgetower.modeling_bridgetower import BridgeTowerBertCrossLayer, BridgeTowerLinkTower
from transformers.models.lxmert.modeling_lxmert import LxmertXLayer

from renaissance.api import Features, Output, TowerFacts
from renaissance.builtin.fusion import co_attention, lxmert
from renaissance.builtin.fusion_bridge import bridge
from renaissance.builtin.fusion_entries import BridgeOptions, CrossOptions

BOTH: frozenset[Output] = frozenset({"vision", "text"})
LENGTHS = (8, 10, 11, 12, 13, 14, 16, 20)


@dataclass(frozen=True, slots=True)
class Size:
    """Sizes of the heads, and tokens of an image."""

    layers: int
    width: int
    heads: int
    patches: int


SIZES: Mapping[str, Size] = {"full": Size(6, 256, 4, 197), "tiny": Size(2, 32, 2, 17)}


def streams(size: Size, batch: int) -> tuple[Features, Features]:
    """Return images [P, N, W] and texts [P, L, W] with the outputs of as many tower layers as the head has."""
    lengths = torch.tensor([LENGTHS[index % len(LENGTHS)] for index in range(batch)])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    real = torch.ones(batch, size.patches, dtype=torch.bool)

    def features(mask: Tensor) -> Features:
        layers = tuple(torch.randn(*mask.shape, size.width, requires_grad=True) for _ in range(size.layers))
        return Features(layers[-1], mask, None, layers)

    return features(real), features(mask)


def bias(mask: Tensor) -> Tensor:
    """Return a mask [P, M] as the additive one [P, 1, 1, M] of the library."""
    return torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)[:, None, None, :]


class LxmertStack(nn.Module):
    """Projections and cross-modality layers of LXMERT."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        config = LxmertConfig(
            hidden_size=size.width,
            num_attention_heads=size.heads,
            intermediate_size=4 * size.width,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        self.projections = nn.ModuleList(nn.Linear(size.width, size.width) for _ in range(2))
        self.layers = nn.ModuleList(LxmertXLayer(config) for _ in range(size.layers))

    def forward(self, vision: Features, text: Features) -> tuple[Tensor, Tensor]:
        """Return both streams [P, N, W] and [P, L, W]."""
        v, t = self.projections[0](vision.tokens), self.projections[1](text.tokens)
        masks = bias(text.mask), bias(vision.mask)
        for layer in self.layers:
            t, v = layer(t, masks[0], v, masks[1])[:2]
        return v, t


class CrossStack(nn.Module):
    """Projections and cross layers of BridgeTower, which are METER's; `linked`: each reads its layer of the towers."""

    def __init__(self, size: Size, *, linked: bool) -> None:
        super().__init__()
        config = BridgeTowerTextConfig(
            hidden_size=size.width,
            num_attention_heads=size.heads,
            intermediate_size=4 * size.width,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        config._attn_implementation = "eager"  # the library has no other one for these layers
        link = BridgeTowerConfig(hidden_size=size.width)
        links = size.layers - 1 if linked else 0
        self.linked = linked
        self.projections = nn.ModuleList(nn.Linear(size.width, size.width) for _ in range(2))
        self.vision = nn.ModuleList(BridgeTowerBertCrossLayer(config) for _ in range(size.layers))
        self.text = nn.ModuleList(BridgeTowerBertCrossLayer(config) for _ in range(size.layers))
        self.vision_links = nn.ModuleList(BridgeTowerLinkTower(link) for _ in range(links))
        self.text_links = nn.ModuleList(BridgeTowerLinkTower(link) for _ in range(links))

    def forward(self, vision: Features, text: Features) -> tuple[Tensor, Tensor]:
        """Return both streams [P, N, W] and [P, L, W]."""
        first = 0 if self.linked else -1
        v, t = self.projections[0](vision.layers[first]), self.projections[1](text.layers[first])
        masks = bias(vision.mask), bias(text.mask)
        for index in range(len(self.vision)):
            if self.linked and index:
                v = self.vision_links[index - 1](self.projections[0](vision.layers[index]), v, masks[0])
                t = self.text_links[index - 1](self.projections[1](text.layers[index]), t, masks[1])
            v, t = (
                self.vision[index](v, t, attention_mask=masks[0], encoder_attention_mask=masks[1])[0],
                self.text[index](t, v, attention_mask=masks[1], encoder_attention_mask=masks[0])[0],
            )
        return v, t


def ours(size: Size) -> dict[str, Any]:
    """Return the heads of renaissance by name."""
    tower = TowerFacts(size.width, class_token=True)
    sizes = {"layers": size.layers, "width": size.width, "heads": size.heads, "dropout": 0.0}
    return {
        "lxmert": lxmert(CrossOptions(**sizes), vision=tower, text=tower),
        "co-attention": co_attention(CrossOptions(**sizes), vision=tower, text=tower),
        "bridge": bridge(BridgeOptions(**sizes), vision=tower, text=tower),
    }


def theirs(size: Size) -> dict[str, nn.Module]:
    """Return the same of transformers."""
    return {
        "lxmert": LxmertStack(size),
        "co-attention": CrossStack(size, linked=False),
        "bridge": CrossStack(size, linked=True),
    }


def step(outputs: Callable[[], tuple[Tensor, Tensor]]) -> Callable[[], None]:
    """Return a forward and a backward pass."""

    def run() -> None:
        vision, text = outputs()
        (vision.square().mean() + text.square().mean()).backward()

    return run


def our_outputs(head: Any, inputs: tuple[Features, Features]) -> tuple[Tensor, Tensor]:
    """Return both fused streams of a head."""
    joint = head(*inputs, BOTH)
    return joint.vision.tokens, joint.text.tokens


def rows(size: Size, batch: int, pairs: int) -> list[list[str]]:
    """Time every head; return the rows of the table."""
    found = []
    references = theirs(size)
    for name, head in ours(size).items():
        inputs, reference = streams(size, batch), references[name]
        timings = take_turns(
            {
                "renaissance": step(lambda head=head, inputs=inputs: our_outputs(head, inputs)),
                "transformers": step(lambda reference=reference, inputs=inputs: reference(*inputs)),
            },
            pairs,
        )
        spreads = (timings.spread("renaissance"), timings.spread("transformers"))
        found.append([name, *map(str, spreads), str(timings.ratio("transformers", "renaissance"))])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7, help="rounds of the timing")
    parser.add_argument("--batch", type=int, default=8, help="pairs of images and texts")
    parser.add_argument("--size", choices=SIZES, default="full")
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, one thread, fp32,", end=" ")
    print(f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}, batch {given.batch}, {SIZES[given.size]}")
    print("CPU seconds of a forward and backward pass, median (least to greatest); transformers to renaissance\n")
    print(table(["head", "renaissance", "transformers", "ratio"], rows(SIZES[given.size], given.batch, given.pairs)))


if __name__ == "__main__":
    main()
