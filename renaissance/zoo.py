"""The zoo: small trained models that ship with renaissance, each a saved model's folder with a card. No torch here.

`from_pretrained("renaissance/two-tower-frozen-vit")` loads one without a network. `make zoo` trains them.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import hypot, prod
from pathlib import Path
from typing import Any, Literal

from renaissance.manifest import CONFIG, WEIGHTS

ORGANISATION = "renaissance"
FOLDER = Path(__file__).parent / "model_cards"
Side = Literal["trained", "untrained"]
# what `make zoo` noted of a second training of each model
TWICE = FOLDER / "twice.json"
# the scores that a model of the zoo is held to, by the heading of their column
COUNTED = (
    ("ITM accuracy", "itm/accuracy"),
    ("text R@1", "retrieval/text R@1"),
    ("image R@1", "retrieval/image R@1"),
)
OF_INTERVAL = 2 * 1.96  # standard deviations from one end of a 95% interval to the other
# what a model has seen, in a sentence
DRAWN = "trained on drawn scenes alone: what it says of photographs means nothing"
OTHERS = "trained on a small collection of pictures; its card says which"


@dataclass(frozen=True)
class Card:
    """A bundled model: its name without the organisation, and the folder with all of its files."""

    name: str
    folder: Path

    @property
    def repository(self) -> str:
        """What `from_pretrained` calls it."""
        return f"{ORGANISATION}/{self.name}"

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """config.json."""
        return self._read(CONFIG)

    @cached_property
    def scores(self) -> Mapping[str, Any]:
        """scores.json."""
        return self._read("scores.json")

    @cached_property
    def ledger(self) -> Mapping[str, Any]:
        """ledger.json."""
        return self._read("ledger.json")

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that it has heads of."""
        return tuple(self.config["tasks"])

    @property
    def domain(self) -> str:
        """What it has seen, and so what it can be asked about."""
        return DRAWN if self.drawn else OTHERS

    @property
    def drawn(self) -> bool:
        """Whether it was trained on drawn scenes of the generated world."""
        return any(corpus.get("drawn") for corpus in self.scores.get("corpora", ()))

    @cached_property
    def size(self) -> int:
        """Bytes of its weights."""
        return (self.folder / WEIGHTS).stat().st_size

    @cached_property
    def parameters(self) -> int:
        """How many numbers its weights are, read from their header; of towers that are left out none count."""
        with (self.folder / WEIGHTS).open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header: dict[str, Any] = json.loads(file.read(length))
        return sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")

    @property
    def flops(self) -> int:
        """FLOPs of the training, forward and backward."""
        return int(self.ledger["flops"]["total"]["training"])

    @property
    def seconds(self) -> float:
        """Seconds of the training, without evaluation."""
        return float(self.scores["seconds"]["training"])

    def score(self, name: str, *, model: Side = "trained") -> Mapping[str, Any] | None:
        """Return a score by 'task/metric', of the model or of its untrained twin, of the split that counts; or None."""
        split = str(self.scores["primary"]).partition("/")[0]
        rows: list[Mapping[str, Any]] = self.scores["scores"]
        named = {(row["model"], row["split"], f"{row['task']}/{row['name']}"): row for row in rows}
        return named.get((model, split, name))

    def deviations(self, name: str) -> float | None:
        """Return by how many standard deviations of their difference a score is above that of the untrained twin.

        The deviation of each is that of its bootstrap interval. None: it has no such score.
        """
        own, twin = self.score(name), self.score(name, model="untrained")
        if own is None or twin is None:
            return None
        deviation = hypot(*((row["high"] - row["low"]) / OF_INTERVAL for row in (own, twin)))
        return float("inf") if deviation == 0 else float((own["value"] - twin["value"]) / deviation)

    @property
    def same_twice(self) -> bool | None:
        """Whether a second training gave the same weights to the bit; None: it was not trained twice."""
        known: dict[str, dict[str, bool]] = json.loads(TWICE.read_text(encoding="utf-8")) if TWICE.is_file() else {}
        return known.get(self.name, {}).get("same")

    def _read(self, name: str) -> Mapping[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / name).read_text(encoding="utf-8"))
        return found


def cards() -> list[Card]:
    """Return the bundled models, by name."""
    found = FOLDER.iterdir() if FOLDER.is_dir() else iter(())
    return [Card(folder.name, folder) for folder in sorted(found) if (folder / CONFIG).is_file()]


def bundled(name: str) -> Path | None:
    """Return the folder of the bundled model that is called 'renaissance/<card>'; None: there is no such one."""
    return next((card.folder for card in cards() if card.repository == name), None)


def shipped(name: str, revision: str | None) -> Path | None:
    """Return the bundled model of a name, unless a revision, or HF_ENDPOINT in the environment, asks for the Hub's."""
    return bundled(name) if revision is None and not os.environ.get("HF_ENDPOINT") else None
