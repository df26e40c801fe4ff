"""The scoring interface of tasks on items: each distinct image, region and text is encoded once, and kept a while.

Letters: V distinct images, T distinct texts, P pairs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from torch import Tensor

from renaissance.api import Batch, Features, Item, ItemTask, Joint, Modality, Output, TextInput
from renaissance.assemble import Assembly, Encoder
from renaissance.data.collate_items import Layout, batch_of, lay_out, tokenized, view_for
from renaissance.errors import CapabilityError
from renaissance.evaluation.scorer import joined, trimmed
from renaissance.features.frozen import Stores
from renaissance.toolkit.devices import moved
from renaissance.toolkit.pooling import rows

PAIRS_AT_ONCE = 256
POOLED: frozenset[Output] = frozenset({"pooled"})
ENCODED_AT_ONCE = 64
CACHE_BYTES = 2 * 2**30

Track = Callable[[Iterable[Any], int, str], Iterator[Any]]


class ModelItemScorer:
    """Predictions of one model on the items of one split, the same whatever the batch size and order."""

    def __init__(
        self,
        assembly: Assembly,
        items: Sequence[Item],
        tasks: Mapping[str, ItemTask],
        track: Track,
        split: str = "",
        stores: Stores | None = None,
    ) -> None:
        self._assembly, self._tasks, self._track, self._split = assembly, tasks, track, split
        self._stores = stores or Stores()
        self._items = tuple(items)
        self._cache = _Cache(assembly.encoder, next(assembly.parameters()).device)
        self._decided: dict[str, list[Tensor]] = {}
        self._matches: dict[tuple[bool, str], list[Tensor]] = {}

    def on(self, items: Sequence[Item]) -> ModelItemScorer:
        """Return the scorer of the same model on other items; what is encoded is shared."""
        other = ModelItemScorer(self._assembly, items, self._tasks, self._track, self._split, self._stores)
        other._cache = self._cache
        return other

    @property
    def items(self) -> Sequence[Item]:
        """The items of the split."""
        return self._items

    def decisions(self, task: str) -> list[Tensor]:
        """What `ItemTask.decide` gives for each item, fp32 on the CPU.

        Raises:
            SampleError: an image cannot be used; an evaluation leaves none out.
        """
        if task not in self._decided:
            module = self._tasks[task]
            groups = self._groups(f"'{task}' on '{self._split}'", regions=module.regions)
            self._decided[task] = [decision for items in groups for decision in self._decide(module, items)]
        return self._decided[task]

    def _decide(self, module: ItemTask, items: Sequence[Item]) -> list[Tensor]:
        with torch.inference_mode():
            layout = lay_out(items, regions=module.regions, paired=module.paired)
            encoded = self._encoded(items, layout)
            batch = self._batch(items, layout, module.slots)
            pairs = module.pairs(encoded, batch, {})
            joint = None if pairs is None else self._fused(encoded, pairs)
            return [moved(decision.float(), torch.device("cpu")) for decision in module.decide(encoded, joint, batch)]

    def matches(self, *, regions: bool = False, by: Literal["itm", "itc"] | None = None) -> list[Tensor]:
        """Scores fp32 [images, texts] of each item: ITM logits, or dot products of ITC's unit vectors.

        Raises:
            CapabilityError: the model was trained for neither, or not for what `by` says.
        """
        kind: str = by or next((name for name in ("itm", "itc") if name in self._assembly.tasks), "itm or itc")
        self._head(kind)
        if (regions, kind) not in self._matches:
            groups = self._groups(f"Matching '{self._split}'", regions=regions)
            self._matches[regions, kind] = [
                scores for items in groups for scores in self._match(items, kind, regions=regions)
            ]
        return self._matches[regions, kind]

    def image_vectors(self) -> Tensor:
        """ITC's unit vectors fp32 [items, W] of the first image of each item.

        Raises:
            CapabilityError: the model was not trained for ITC.
        """
        head, found = self._head("itc"), []
        for items in self._groups(f"Images of '{self._split}'", regions=False):
            with torch.inference_mode():
                first = [replace(item, images=item.images[:1], texts=()) for item in items]
                layout = lay_out(first)
                encoded = self._encoded(first, layout)
                vectors = head.embed(encoded.represent(encoded.vision, "vision"), "vision")
                found.append(vectors[torch.tensor(layout.pairs)[:, 0]].float().cpu())
        return torch.cat(found)

    def text_vectors(self, texts: Sequence[str]) -> Tensor:
        """ITC's unit vectors fp32 [texts, W] of texts, which need not be those of the items.

        Raises:
            CapabilityError: the model was not trained for ITC.
        """
        head, found = self._head("itc"), []
        for start in range(0, len(texts), ENCODED_AT_ONCE):
            with torch.inference_mode():
                features = self._texts([(text,) for text in texts[start : start + ENCODED_AT_ONCE]])
                found.append(head.embed(self._assembly.encoder.represent(features, "text"), "text").float().cpu())
        return torch.cat(found)

    def _head(self, name: str) -> Any:
        """Return the head that matches images with texts.

        Raises:
            CapabilityError: the model was not trained for it.
        """
        if name not in self._assembly.tasks:
            there = ", ".join(self._assembly.tasks) or "nothing"
            raise CapabilityError(
                f"Matching images with texts needs the task '{name}', and the model was trained for {there}; add it to "
                "its tasks."
            )
        return self._assembly.tasks[name]

    def _match(self, items: Sequence[Item], kind: str, *, regions: bool) -> list[Tensor]:
        """Return the scores fp32 [images, texts] of each item; `regions`: of its boxes, where it has boxes."""
        cropped = [regions and bool(item.boxes) for item in items]
        if any(cropped) and not all(cropped):
            parts = {
                crop: iter(
                    self._match([i for i, c in zip(items, cropped, strict=True) if c is crop], kind, regions=crop)
                )
                for crop in (True, False)
            }
            return [next(parts[crop]) for crop in cropped]
        regions = all(cropped)
        with torch.inference_mode():
            layout = lay_out(items, regions=regions)
            scores = self._matched(self._encoded(items, layout), layout, kind)
        shapes = [(len(item.boxes if regions else item.images), len(item.texts)) for item in items]
        each = torch.split(scores, [images * texts for images, texts in shapes])
        return [part.reshape(shape) for part, shape in zip(each, shapes, strict=True)]

    def _matched(self, encoded: _Encoded, layout: Layout, kind: str) -> Tensor:
        """Return the score fp32 [P] of each pair, on the CPU."""
        head = self._head(kind)
        index = torch.tensor(layout.pairs)[:, :2]
        if kind == "itc":
            images = head.embed(encoded.represent(encoded.vision, "vision"), "vision")
            texts = head.embed(encoded.represent(encoded.text, "text"), "text")
            similarity: Tensor = (images[index[:, 0]] * texts[index[:, 1]]).sum(-1)
            return similarity.float().cpu()
        fuse = self._assembly.encoder.fuse
        distinct, places = torch.unique(index, dim=0, return_inverse=True)  # items of an image share its true caption
        parts = [
            head.predict(fuse(rows(encoded.vision, part[:, 0]), trimmed(rows(encoded.text, part[:, 1])), POOLED))
            for part in torch.split(distinct, PAIRS_AT_ONCE)
        ]
        return torch.cat(parts).float().cpu()[places]

    def _fused(self, encoded: _Encoded, pairs: Any) -> Joint:
        """Fuse the pairs of a batch, some at a time."""
        found: list[Joint] = []
        for places in torch.split(torch.arange(len(pairs.index)), PAIRS_AT_ONCE):
            index = pairs.index[places]
            slots = None if pairs.slots is None else moved(pairs.slots[places], index.device)
            vision, text = rows(pairs.vision, index[:, 0]), rows(pairs.text, index[:, 1])
            found.append(self._assembly.encoder.fuse(vision, text, pairs.outputs, slots))
        if len(found) == 1:
            return found[0]
        parts = [joint.pooled for joint in found]
        assert all(part is not None for part in parts), "tasks on items read the pooled vector"
        return Joint(pooled=torch.cat(cast("list[Tensor]", parts)))

    def _groups(self, what: str, *, regions: bool) -> Iterator[list[Item]]:
        """Yield the items in order, so many at a time that their pairs are few enough."""
        groups: list[list[Item]] = [[]]
        pairs = 0
        for item in self._items:
            count = max(1, len(item.boxes if regions else item.images)) * max(1, len(item.texts))
            if groups[-1] and pairs + count > PAIRS_AT_ONCE:
                groups.append([])
                pairs = 0
            groups[-1].append(item)
            pairs += count
        yield from self._track(groups, len(groups), what)

    def _encoded(self, items: Sequence[Item], layout: Layout) -> _Encoded:
        encoder: Any = self._assembly.encoder
        views = {view.key: view for view in layout.images}

        def images(keys: Sequence[Hashable]) -> Features:
            stored, named = self._stores.vision, [(*cast(Any, key), None) for key in keys]
            if stored is not None and stored.has(named):
                return cast(Features, encoder.encode_vision(None, moved(stored.views(named), self._cache.device)))
            chosen = [views[cast(Any, key)] for key in keys]
            processor = encoder.vision.processor
            inputs = processor([view_for(processor, items[view.item], view) for view in chosen])
            return cast(Features, encoder.encode_vision(moved(inputs, self._cache.device)))

        vision = self._cache.read("vision", list(views), images) if views else None
        text = self._texts(layout.texts) if layout.texts else None
        return _Encoded(encoder, vision, text)

    def _texts(self, texts: Sequence[tuple[str, ...]]) -> Features:
        """Return the encoded texts, in their order."""
        encoder: Any = self._assembly.encoder

        def encode(keys: Sequence[Hashable]) -> Features:
            named = cast("Sequence[tuple[str, ...]]", keys)
            inputs = moved(tokenized(named, encoder.text.processor), self._cache.device)
            stored = self._stores.text
            if stored is not None and stored.has(named):
                return cast(Features, encoder.encode_text(inputs, moved(stored.texts(named), self._cache.device)))
            return cast(Features, encoder.encode_text(inputs))

        return self._cache.read("text", list(texts), encode)

    def _batch(self, items: Sequence[Item], layout: Layout, slots: int) -> Batch:
        nothing = TextInput(torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, 1, dtype=torch.bool))
        return moved(batch_of(items, layout, None, nothing, slots=slots), self._cache.device)


class _Encoded:
    """The encoded images and texts of some items."""

    def __init__(self, encoder: Encoder, vision: Features | None, text: Features | None) -> None:
        self._encoder, self._vision, self._text = encoder, vision, text

    @property
    def vision(self) -> Features:
        """The distinct images [V, N, D]."""
        assert self._vision is not None, "these items have no images"
        return self._vision

    @property
    def text(self) -> Features:
        """The distinct texts [T, L, D]."""
        assert self._text is not None, "these items have no texts"
        return self._text

    def view(self, task: str) -> tuple[Features | None, Features | None]:
        """No further views: nothing is masked in an evaluation."""
        return None, None

    def represent(self, features: Features, modality: Modality) -> Tensor:
        """One vector [B, D] for each input of one modality."""
        return self._encoder.represent(features, modality)


class _Cache:
    """Encoded inputs on the CPU by key, the ones used longest ago dropped beyond a bound in bytes."""

    def __init__(self, encoder: Encoder, device: torch.device) -> None:
        self.encoder, self.device = encoder, device
        self._held: OrderedDict[tuple[Modality, Hashable], Features] = OrderedDict()
        self._bytes = 0

    def read(
        self, modality: Modality, keys: Sequence[Hashable], encode: Callable[[Sequence[Hashable]], Features]
    ) -> Features:
        """Return the features of these keys, in order, on the model's device; what is not held is encoded."""
        missing = [key for key in keys if (modality, key) not in self._held]
        for start in range(0, len(missing), ENCODED_AT_ONCE):
            part = missing[start : start + ENCODED_AT_ONCE]
            features = moved(encode(part), torch.device("cpu"))
            for row, key in enumerate(part):
                self._hold((modality, key), trimmed(rows(features, torch.tensor([row]))))
        found = [self._held[modality, key] for key in keys]
        for key in keys:
            self._held.move_to_end((modality, key))
        self._drop(keep=len(self._held) if not missing else len(keys))
        return moved(joined(found), self.device)

    def _hold(self, key: tuple[Modality, Hashable], features: Features) -> None:
        self._held[key] = replace(features)
        self._bytes += _size(features)

    def _drop(self, *, keep: int) -> None:
        while self._bytes > CACHE_BYTES and len(self._held) > keep:
            _, features = self._held.popitem(last=False)
            self._bytes -= _size(features)


def _size(features: Features) -> int:
    tensors = (features.tokens, features.mask, features.pooled, features.embedded, *features.layers)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)
