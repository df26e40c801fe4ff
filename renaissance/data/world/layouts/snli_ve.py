"""SNLI-VE: hypotheses about Flickr30k's images. Whatever is said of a thing is as often true as open and false."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random
from typing import Any

from renaissance.data.world.layouts.captions import flickr_file
from renaissance.data.world.layouts.site import Figures, Site, lots, sites
from renaissance.data.world.statements import Hypothesis, Label, hypotheses, label_of, say_hypothesis
from renaissance.data.world.telling import Told, tell_split
from renaissance.data.world.worlds import Picture, Split, World

SPLITS: Mapping[str, Split] = {"train": "train", "dev": "val", "test": "test"}
LABELS: tuple[Label, ...] = ("contradiction", "neutral", "entailment")
# of each label and picture, on average at most
HYPOTHESES = 2


@dataclass(frozen=True, slots=True)
class Judged:
    """A hypothesis about a picture, the `number`-th about it, and what the picture makes of it."""

    picture: Picture
    number: int
    label: Label
    texts: Mapping[str, str]


def write_snli_ve(root: Path, world: World) -> Mapping[str, Figures]:
    """Write `snli_ve_{train,dev,test}.jsonl` and `flickr30k-images/`."""
    judged = {name: _judged(world, name) for name in SPLITS}
    premises: dict[int, Told] = {}
    for split in SPLITS.values():
        told = tell_split(world, "premises", split, 1, alone=False)
        premises |= {picture.number: captions[0] for picture, captions in told}
    figures: dict[str, Figures] = {}
    for language, site in sites(root, "snli-ve", world):
        for name, split in SPLITS.items():
            rows = [_row(site, name, each, premises[each.picture.number], language) for each in judged[name]]
            site.json_lines(f"snli_ve_{name}.jsonl", rows)
            for picture in world.by_split[split]:
                site.image(flickr_file(picture), picture)
        figures[site.name] = {name: lots("accuracy", len(judged[name]), len(LABELS)) for name in ("dev", "test")}
    return figures


def _judged(world: World, name: str) -> list[Judged]:
    """Return hypotheses; those that say the same of a thing have each label equally often."""
    pictures = world.by_split[SPLITS[name]]
    found: dict[str, dict[Label, list[tuple[Picture, Hypothesis]]]] = {}
    for picture in pictures:
        random = world.random("hypotheses", picture.number)
        for hypothesis in hypotheses(picture.scene, random):
            by_label = found.setdefault(_kind(hypothesis), {label: [] for label in LABELS})
            by_label[label_of(hypothesis, picture.scene)].append((picture, hypothesis))
    random = world.random("hypotheses of", name)
    most = HYPOTHESES * len(pictures) // max(1, len(found)) + 1
    chosen: list[tuple[Picture, Hypothesis]] = []
    for by_label in found.values():
        number = min(most, *(len(options) for options in by_label.values()))
        for label in LABELS:
            chosen += random.sample(by_label[label], number)
    chosen.sort(key=lambda pair: pair[0].number)
    return list(_told(chosen, world, random))


def _told(chosen: list[tuple[Picture, Hypothesis]], world: World, random: Random) -> Iterator[Judged]:
    number = 0
    for i, (picture, hypothesis) in enumerate(chosen):
        number = number + 1 if i and chosen[i - 1][0] is picture else 0
        key = random.getrandbits(48)
        texts = {language: say_hypothesis(hypothesis, language, Random(key)) for language in world.languages}
        yield Judged(picture, number, label_of(hypothesis, picture.scene), texts)


def _kind(hypothesis: Hypothesis) -> str:
    """Return what is said of a thing, in which a text alone should tell nothing of the label."""
    if hypothesis.value is not None:
        noun = hypothesis.subject.noun
        named = next(field.name for field in fields(noun) if getattr(noun, field.name) is not None)
        return f"{named} is {hypothesis.value}"
    return hypothesis.place or str(hypothesis.relation)


def _row(site: Site, name: str, judged: Judged, premise: Told, language: str) -> dict[str, Any]:
    flickr = judged.picture.flickr_id
    key = f"{flickr}.jpg#{judged.number}r1{judged.label[0]}"
    site.knows(name, key, judged.label)
    return {
        "annotator_labels": [judged.label],
        "captionID": f"{flickr}.jpg#0",
        "gold_label": judged.label,
        "pairID": key,
        "sentence1": premise.texts[language],
        "sentence1_binary_parse": "",
        "sentence1_parse": "",
        "sentence2": judged.texts[language],
        "sentence2_binary_parse": "",
        "sentence2_parse": "",
        "Flickr30K_ID": flickr,
    }
