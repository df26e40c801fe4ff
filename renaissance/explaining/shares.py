"""How much of an output is owed to the picture, and how much to the text: Shapley values of two players.

The output F of a pair (image i, text t) is compared with that of pairs in which one or both come from *other* samples:
an image that is blanked out is like none that a model has seen, another sample's is. With the foreign image j and
text u of two different other samples, so that these two do not belong together either,

    shapley(image) = ((F(i, u) - F(j, u)) + (F(i, t) - F(j, t))) / 2
    shapley(text)  = ((F(j, t) - F(j, u)) + (F(i, t) - F(i, u))) / 2

which takes the four outputs and no approximation; the two add up to F(i, t) - F(j, u). The share of the image is
|shapley(image)| / (|shapley(image)| + |shapley(text)|), as MM-SHAP has it (Parcalabescu and Frank 2023, arXiv
2212.08158) for tokens, averaged over samples. An additive output f(i) + g(t) has shapley(image) = f(i) - f(j); one of
the image alone has a share of 1.

Letters in shapes: P samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renaissance.errors import DataError
from renaissance.explaining.pairs import Pair
from renaissance.toolkit.metrics import bootstrap

# the outputs fp64 [P] of picture i with text i
Outputs = Callable[[Sequence[Any], Sequence[str]], Tensor]


@dataclass(frozen=True, slots=True)
class Shapley:
    """Of each sample fp64 [P]: the outputs with nothing foreign, the text, the image, and both."""

    own: Tensor
    foreign_text: Tensor
    foreign_image: Tensor
    foreign: Tensor

    @property
    def image(self) -> Tensor:
        """The Shapley value of the image [P]."""
        return ((self.foreign_text - self.foreign) + (self.own - self.foreign_image)) / 2

    @property
    def text(self) -> Tensor:
        """The Shapley value of the text [P]."""
        return ((self.foreign_image - self.foreign) + (self.own - self.foreign_text)) / 2

    @property
    def image_share(self) -> Tensor:
        """The image's share [P], one half where neither changes anything."""
        image, text = self.image.abs(), self.text.abs()
        total = image + text
        return torch.where(total > 0, image / total.clamp(min=torch.finfo(total.dtype).tiny), 0.5)

    def summary(self) -> dict[str, Any]:
        """Return the figures: means over the samples, and 95% bootstrap intervals."""
        share = self.image_share
        return {
            "samples": len(share),
            "output": float(self.own.mean()),
            "image_share": float(share.mean()),
            "image_share_interval": list(bootstrap(share.numpy(), np.arange(len(share)))),
            "text_share": float((1 - share).mean()),
            "shapley_image": float(self.image.mean()),
            "shapley_text": float(self.text.mean()),
            "lost_without_image": float((self.own - self.foreign_image).mean()),
            "lost_without_text": float((self.own - self.foreign_text).mean()),
        }


def modality_shares(outputs: Outputs, pairs: Sequence[Pair], *, seed: int = 0) -> Shapley:
    """Return the Shapley values of image and text in the output of each pair.

    Raises:
        DataError: there are fewer than three different images, or texts.
    """
    others, further = _strangers(pairs, seed)
    pictures, texts = [pair.picture for pair in pairs], [pair.text for pair in pairs]
    strange_pictures = [pictures[place] for place in others]
    strange_texts = [texts[place] for place in further]
    return Shapley(
        own=outputs(pictures, texts),
        foreign_text=outputs(pictures, strange_texts),
        foreign_image=outputs(strange_pictures, texts),
        foreign=outputs(strange_pictures, strange_texts),
    )


def _strangers(pairs: Sequence[Pair], seed: int) -> tuple[list[int], list[int]]:
    """Return for each pair whose image, and whose text, takes the place of its own: those of two other samples."""
    random = np.random.default_rng(seed)
    images, texts = [], []
    for place, pair in enumerate(pairs):
        order = [int(other) for other in random.permutation(len(pairs)) if other != place]
        image = next((other for other in order if not _same(pair, pairs[other])), None)
        strangers = (pair,) if image is None else (pair, pairs[image])
        text = next((other for other in order if not any(_same(one, pairs[other]) for one in strangers)), None)
        if image is None or text is None:
            raise DataError(
                "Modality shares exchange images and texts between three different samples, and there are not so "
                "many with images and texts of their own. Give more --samples."
            )
        images.append(image)
        texts.append(text)
    return images, texts


def _same(one: Pair, other: Pair) -> bool:
    return one.image_id == other.image_id or one.text == other.text
