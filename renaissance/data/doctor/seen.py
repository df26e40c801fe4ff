"""What pretrained backbones have seen of the data that a model is to be evaluated on."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from renaissance.api import Unknown
from renaissance.data.doctor.overlap import OF_COCO, OF_FLICKR, OF_GENOME, REF
from renaissance.data.doctor.report import OverlapLevel, Seen

# what a backbone says that it was trained on, and the layouts that are made of it
MADE_OF: tuple[tuple[str, frozenset[str]], ...] = (
    (r"\bcoco\b", OF_COCO),
    (r"flickr ?30k", OF_FLICKR),
    (r"visual genome", OF_GENOME),
    (r"conceptual (captions|12m)|\bcc3m|\bcc12m", frozenset({"conceptual-captions"})),
    (r"\bsbu\b", frozenset({"sbu"})),
    (r"\bvqa", frozenset({"vqav2"})),
    (r"\bgqa\b", frozenset({"gqa"})),
    (r"\bnlvr", frozenset({"nlvr2"})),
    (r"refcoco", REF),
    (r"\bsnli", frozenset({"snli-ve"})),
    (r"multi-?nli|\bmnli|quora|\bqqp|squad|\bsst|\bglue|all-?nli", frozenset({"glue"})),
    (r"cifar-10\b", frozenset({"cifar-10"})),
)
# their texts are the test themselves, so no claim is made with such a backbone, whichever part it has seen
TEXTS = frozenset({"snli-ve", "glue"})


def level(trained_on: str, layout: str) -> OverlapLevel | None:
    """Return what it means for a layout that a backbone was trained on something; None: nothing."""
    found = any(re.search(words, trained_on, re.IGNORECASE) and layout in made for words, made in MADE_OF)
    if not found:
        return None
    return "leak" if "test included" in trained_on or layout in TEXTS else "standard overlap"


def seen(
    backbones: Mapping[str, tuple[str, ...] | Unknown], tested: Mapping[str, str], waived: Collection[str]
) -> Iterator[Seen]:
    """Yield what backbones (name -> trained_on) have seen of evaluation data (name -> layout)."""
    for backbone, known in backbones.items():
        for what in () if isinstance(known, Unknown) else known:
            for where, layout in tested.items():
                found = level(what, layout)
                if found is not None:
                    name = f"{backbone}:{where}"
                    yield Seen(name, backbone, what, where, found, name in waived)
