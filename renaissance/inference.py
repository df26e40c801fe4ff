"""What a model is asked for with pictures and texts given by hand: vectors, matches, and one ranked against many.

Letters in shapes: V images, T texts, n pairs, W width of the shared space, C candidates, K those that are told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from renaissance.api import Features, Modality, Output, TextInput, VisionInput
from renaissance.assemble import Assembly, Encoder
from renaissance.builtin.retrieval import reranked
from renaissance.errors import SampleError, SpecError
from renaissance.evaluation.given import Picture, in_batches, opened, pictures_of, words_of
from renaissance.spec import shown
from renaissance.toolkit.devices import moved
from renaissance.toolkit.metrics import finite
from renaissance.toolkit.modes import evaluating
from renaissance.toolkit.pooling import rows

# how many of the best by similarity are matched one by one, where nothing else is said
RERANKED = 16

_POOLED: frozenset[Output] = frozenset({"pooled"})


class Embeddings(NamedTuple):
    """Unit vectors fp32 on the CPU: images [V, W] and texts [T, W], None where none were given."""

    images: Tensor | None
    texts: Tensor | None


class Ranking(NamedTuple):
    """Candidates from the best on, on the CPU.

    indices int64 [K]: their places in the list that was given. similarity fp32 [K]: dot products of unit vectors.
    probability fp32 [K]: that they belong together, NaN where only the similarity was asked; None: it was for all.
    """

    indices: Tensor
    similarity: Tensor
    probability: Tensor | None


def encode_images(encoder: Encoder, batch: Sequence[tuple[int, Picture]]) -> Features:
    """Encode pictures, each with its place in the list that was given, on the model's device.

    Raises:
        SampleError: one cannot be read.
    """
    pictures = [opened(picture, f"images[{index}]") for index, picture in batch]
    inputs: VisionInput = encoder.vision.processor(pictures)
    return encoder.encode_vision(moved(inputs, device_of(encoder)))


def encode_texts(encoder: Encoder, batch: Sequence[tuple[int, str]]) -> Features:
    """Encode texts, each with its place in the list that was given, on the model's device.

    Raises:
        SampleError: one is empty, or no text.
    """
    for index, words in batch:
        if not isinstance(words, str) or not words.strip():
            raise SampleError(f"texts[{index}] is empty, or no text. Leave it out.")
    inputs: TextInput = encoder.text.processor([words for _, words in batch])
    return encoder.encode_text(moved(inputs, device_of(encoder)))


def device_of(encoder: Encoder) -> torch.device:
    """Return where a model computes."""
    return next(encoder.parameters()).device


def embed(
    assembly: Assembly,
    images: Picture | Sequence[Picture] | None,
    texts: str | Sequence[str] | None,
    *,
    batch_size: int,
) -> Embeddings:
    """Return unit vectors of images and texts, by ITC.

    Raises:
        SpecError: there are neither images nor texts.
        SampleError: an image cannot be read, or a text is empty.
    """
    if images is None and texts is None:
        raise SpecError("There is nothing to embed. Give images=, texts=, or both.")
    with evaluating(assembly):
        return Embeddings(
            images=None if images is None else _vectors(assembly, "vision", pictures_of(images), batch_size),
            texts=None if texts is None else _vectors(assembly, "text", words_of(texts), batch_size),
        )


def _vectors(assembly: Assembly, side: Modality, items: Sequence[Any], batch_size: int) -> Tensor:
    """Return the unit vectors [V, W] of pictures or [T, W] of texts."""
    encoder, head = assembly.encoder, cast(Any, assembly.tasks["itc"])

    def vectors(batch: list[tuple[int, Any]]) -> Tensor:
        found: Tensor = head.embed(encoder.represent(_encoded(encoder, side, batch), side), side)
        return found

    return in_batches(vectors, items, batch_size)


def _encoded(encoder: Encoder, side: Modality, batch: list[tuple[int, Any]]) -> Features:
    return encode_images(encoder, batch) if side == "vision" else encode_texts(encoder, batch)


def match(
    assembly: Assembly, images: Picture | Sequence[Picture], texts: str | Sequence[str], *, batch_size: int
) -> Tensor:
    """Return the probability that image i and text i belong together, fp32 [n] on the CPU, by ITM.

    Raises:
        SpecError: there are not as many images as texts.
        SampleError: an image cannot be read, or a text is empty.
    """
    encoder, head = assembly.encoder, cast(Any, assembly.tasks["itm"])
    pictures, captions = pictures_of(images), words_of(texts)
    if len(pictures) != len(captions):
        raise SpecError(
            f"match compares image i with text i, and there are {len(pictures)} images and {len(captions)} texts. "
            "Give as many of each."
        )

    def probabilities(batch: list[tuple[int, tuple[Picture, str]]]) -> Tensor:
        vision = encode_images(encoder, [(index, picture) for index, (picture, _) in batch])
        text = encode_texts(encoder, [(index, words) for index, (_, words) in batch])
        return torch.sigmoid(head.predict(encoder.fuse(vision, text, _POOLED)))

    with evaluating(assembly):
        return in_batches(probabilities, list(zip(pictures, captions, strict=True)), batch_size)


def rank(
    assembly: Assembly,
    images: Picture | Sequence[Picture],
    texts: str | Sequence[str],
    *,
    top: int | None,
    rerank: int,
    batch_size: int,
) -> Ranking:
    """Order images for one text, or texts for one image: by ITC, and the `rerank` best of them by ITM.

    Raises:
        SpecError: not exactly one of `images` and `texts` is a list, or a number is out of its range.
        SampleError: an image cannot be read, or a text is empty.
    """
    if isinstance(images, Picture) == isinstance(texts, str):
        raise SpecError("rank orders images for one text, or texts for one image. Give one of them alone, and a list.")
    numbers = (rerank, 1 if top is None else top)
    if not all(isinstance(number, int) for number in numbers) or numbers[0] < 0 or numbers[1] < 1:
        told = f"{shown(top)} and {shown(rerank)}"
        raise SpecError(f"top must be at least 1 and rerank at least 0, whole numbers, and they are {told}.")
    query: Modality = "vision" if isinstance(images, Picture) else "text"
    sides = _Sides(assembly, {"vision": pictures_of(images), "text": words_of(texts)}, query, batch_size)
    with evaluating(assembly):
        similarity = finite(sides.similarity(), what="rank")
        return ranking(similarity, sides.match if rerank else None, rerank=rerank, top=top)


def ranking(similarity: Tensor, match: Callable[[Tensor], Tensor] | None, *, rerank: int, top: int | None) -> Ranking:
    """Return the order of candidates by their similarity [C], the best `rerank` of them by `match`, as evaluation does.

    match(places int64 [K]) gives the logits [K] of these candidates. Equal ones keep the order in which they came.
    """
    logits = torch.full_like(similarity, torch.nan)

    def noted(index: Tensor) -> Tensor:
        assert match is not None
        logits[index[:, 1]] = match(index[:, 1])
        return logits[index[:, 1]]

    order = similarity if match is None else reranked(similarity[None], rerank, noted)[0]
    best = order.argsort(descending=True, stable=True)[:top]
    return Ranking(best, similarity[best], None if match is None else torch.sigmoid(logits[best]))


class _Sides:
    """One query and its candidates, by modality."""

    def __init__(self, assembly: Assembly, items: dict[Modality, list[Any]], query: Modality, batch_size: int) -> None:
        self._assembly, self._items, self._query, self._batch_size = assembly, items, query, batch_size
        self._others: Modality = "text" if query == "vision" else "vision"

    def similarity(self) -> Tensor:
        """Return the dot products of the candidates' unit vectors with the query's, fp32 [C]."""
        others, query = (
            _vectors(self._assembly, side, self._items[side], self._batch_size) for side in (self._others, self._query)
        )
        return others @ query[0]

    def match(self, places: Tensor) -> Tensor:
        """Return the logits of the query with the candidates at these places [K], fp32."""
        numbered = list(enumerate(self._items[self._others]))
        encoder, head = self._assembly.encoder, cast(Any, self._assembly.tasks["itm"])
        with torch.inference_mode():
            query = _encoded(encoder, self._query, list(enumerate(self._items[self._query])))

        def logits(batch: list[tuple[int, tuple[int, Any]]]) -> Tensor:
            others = _encoded(encoder, self._others, [item for _, item in batch])
            one = rows(query, torch.zeros(len(batch), dtype=torch.int64, device=query.tokens.device))
            vision, text = (one, others) if self._query == "vision" else (others, one)
            found: Tensor = head.predict(encoder.fuse(vision, text, _POOLED))
            return found

        return in_batches(logits, [numbered[place] for place in places.tolist()], self._batch_size)
