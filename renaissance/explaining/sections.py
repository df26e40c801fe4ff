"""The sections of an explanation: each returns its figures, JSON-able, and leaves its pictures in the folder.

Letters in shapes: P samples, D width, R and C rows and columns of patches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL.Image import Image, fromarray

from renaissance.api import Box, TextInput, VisionInput
from renaissance.assemble import Assembly
from renaissance.errors import CapabilityError
from renaissance.explaining.drift import drift
from renaissance.explaining.gradients import TOLERANCE, Attribution, Baseline, attributed, check_complete
from renaissance.explaining.layers import Layers, layer_features, of_modality
from renaissance.explaining.outputs import Explained, scores
from renaissance.explaining.pairs import Labelled, Pair, Pointed
from renaissance.explaining.pictures import draw_lines, draw_map, draw_matrix
from renaissance.explaining.pointing import Pointing, cropped, pointing, pointing_summary
from renaissance.explaining.probing import Probe, probe_layers
from renaissance.explaining.rollout import Rollout, attention_rollout
from renaissance.explaining.shares import modality_shares
from renaissance.explaining.similarity import cka_matrix
from renaissance.explaining.tokens import by_word, patch_grid, words_of
from renaissance.progress import Progress

DRAWN = 4  # pictures of the pointing game
ATTRIBUTION, ROLLOUT = "what it adds to the output", "share by attention"


@dataclass(slots=True)
class Explaining:
    """A model that is being explained, and what has come of it: files with their titles, and what could not be had."""

    own: Assembly
    output: Explained
    folder: Path
    steps: int
    baseline: Baseline
    seed: int
    progress: Progress
    pictures: list[dict[str, str]] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)

    def picture(self, file: str, section: str, title: str) -> Path:
        """Note a picture, and return where it is to be drawn."""
        self.pictures.append({"file": file, "section": section, "title": title})
        return self.folder / file

    def inputs(self, pair: Pair) -> tuple[VisionInput, TextInput]:
        """Return a pair as the model takes it: pixels [1, 3, H, W], tokens [1, L]."""
        encoder = self.own.encoder
        return encoder.vision.processor([pair.picture]), encoder.text.processor([pair.text])

    def attributed(self, pair: Pair) -> Attribution:
        """Return the integrated gradients of a pair, whether they add up or not."""
        return attributed(self.own, self.output, *self.inputs(pair), steps=self.steps, baseline=self.baseline)

    def rolled(self, pair: Pair) -> Rollout | None:
        """Return the attention rollout of a pair; None, with the reason noted, where it cannot be had."""
        try:
            return attention_rollout(self.own, self.output, *self.inputs(pair))
        except CapabilityError as error:
            self.unavailable["rollout"] = str(error)
            return None


def sample_section(work: Explaining, pair: Pair) -> dict[str, Any]:
    """Explain one pair: what each patch and each word adds to the output, and where attention leads."""
    words = words_of(work.own.encoder.text.processor, pair.text)
    images, _ = work.inputs(pair)
    _, rows, columns = patch_grid(work.own, images)
    found, rolled = work.attributed(pair), work.rolled(pair)
    check_complete(found)
    patches, added = found.patches(rows, columns), by_word(found.tokens, words).tolist()
    shares = None if rolled is None else by_word(rolled.tokens, words).tolist()
    seen, said = as_seen(images), [word.text for word in words]
    title = f"{work.output.name}: {found.output:.3f}, without picture and words {found.baseline:.3f}"
    path = work.picture("attribution.png", "sample", title)
    draw_map(path, seen, patches, list(zip(said, added, strict=True)), title=title, meaning=ATTRIBUTION, signed=True)
    if rolled is not None and shares is not None:
        path = work.picture("rollout.png", "sample", "Attention rollout")
        told = list(zip(said, shares, strict=True))
        draw_map(path, seen, rolled.patches, told, title="Attention rollout", meaning=ROLLOUT, signed=False)
    return {
        "text": pair.text,
        "image_sha256": hashlib.sha256(pair.picture.tobytes()).hexdigest(),
        "output": found.output,
        "baseline": found.baseline,
        "added_by_image": float(found.pixels.sum()),
        "added_by_text": float(found.tokens.sum()),
        "steps": found.steps,
        "parts": found.parts,
        "gap": found.gap,
        "tolerance": TOLERANCE,
        "convergence_delta": found.delta,
        "patches": patches.tolist(),
        "rollout_patches": None if rolled is None else rolled.patches.tolist(),
        "words": [
            {"word": word, "attribution": value, "rollout": None if shares is None else shares[place]}
            for place, (word, value) in enumerate(zip(said, added, strict=True))
        ],
    }


def as_seen(images: VisionInput) -> Image:
    """Return the picture of pixels [1, 3, H, W] as the model sees it: resized and cropped."""
    return fromarray(images.pixels[0].permute(1, 2, 0).contiguous().numpy())


def shares_section(work: Explaining, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return how much of the output is owed to the picture, and how much to the text."""
    return modality_shares(partial(scores, work.own, work.output), pairs, seed=work.seed).summary()


def cka_section(work: Explaining, pairs: Sequence[Pair], other: Assembly | None) -> tuple[dict[str, Any], Layers]:
    """Return the similarity of all layers with each other, and with those of another model; and the layers."""
    pictures, texts = [pair.picture for pair in pairs], [pair.text for pair in pairs]
    layers = layer_features(work.own, pictures, texts)
    found: dict[str, Any] = {"samples": len(pairs), "layers": list(layers), "within": cka_matrix(layers, layers)}
    title = "Similarity of the model's layers"
    draw_matrix(
        work.picture("cka.png", "cka", title),
        found["within"],
        list(layers),
        list(layers),
        title=title,
        names=("this model", "this model"),
    )
    if other is not None:
        others = layer_features(other, pictures, texts)
        found |= {"against_layers": list(others), "against": cka_matrix(layers, others)}
        title = "Similarity of its layers with those of the other model"
        draw_matrix(
            work.picture("cka-against.png", "cka", title),
            found["against"],
            list(layers),
            list(others),
            title=title,
            names=("this model", "the other"),
        )
    return found, layers


def drift_section(work: Explaining, other: Assembly, pairs: Sequence[Pair]) -> list[dict[str, Any]] | None:
    """Return how far each layer is from that of the other model; None, with the reason, for models built otherwise."""
    samples = None
    if pairs:
        pictures, texts = [pair.picture for pair in pairs], [pair.text for pair in pairs]
        samples = layer_features(work.own, pictures, texts), layer_features(other, pictures, texts)
    try:
        rows = [asdict(row) for row in drift(work.own, other, samples)]
    except CapabilityError as error:
        work.unavailable["drift"] = str(error)
        return None
    series = {"weights, relative L2": [row["weights"] for row in rows]}
    if samples is not None:
        series["representation, 1 - CKA"] = [row["cka"] for row in rows]
    title = "Drift from the other model, by layer"
    draw_lines(
        work.picture("drift.png", "drift", title),
        [row["layer"] for row in rows],
        series,
        title=title,
        measure="distance",
    )
    return rows


def probes_section(work: Explaining, given: Labelled) -> list[dict[str, Any]]:
    """Return what can be read from each layer that sees one modality, and the controls; and draw it."""
    probed = _probed(work.own, given, work.seed)
    for modality, found in probed.items():
        chosen = [probe.layer for probe in next(iter(found.values()))]
        series = {name: [probe.accuracy for probe in probes] for name, probes in found.items()}
        flat = {name: probes[0].majority for name, probes in found.items()}
        title = f"Read from the {modality} layers by a linear probe (dotted: the commonest class)"
        draw_lines(
            work.picture(f"probes-{modality}.png", "probes", title),
            chosen,
            series,
            title=title,
            measure="accuracy, %",
            flat=flat,
        )
    return _rows(probed)


def probes_of(other: Assembly, given: Labelled, seed: int) -> list[dict[str, Any]]:
    """Return what can be read from each layer of another model, of the same scenes."""
    return _rows(_probed(other, given, seed))


def _probed(model: Assembly, given: Labelled, seed: int) -> dict[str, dict[str, list[Probe]]]:
    """Return the probes of each layer, by modality and target."""
    layers = layer_features(model, given.pictures, given.texts)
    return {
        modality: {
            name: probe_layers(of_modality(layers, modality), name, labels, seed=seed)
            for name, labels in given.labels.items()
        }
        for modality in ("vision", "text")
    }


def _rows(probed: Mapping[str, Mapping[str, Sequence[Probe]]]) -> list[dict[str, Any]]:
    return [asdict(probe) for found in probed.values() for probes in found.values() for probe in probes]


def pointing_section(work: Explaining, given: Sequence[Pointed]) -> dict[str, Any]:
    """Return how often maps point at the thing that a caption names, beside chance.

    incomplete: attributions that do not add up, which are left out.
    """
    points: dict[str, list[Pointing]] = {"attribution": [], "rollout": []}
    incomplete = 0
    for number, one in enumerate(work.progress.track(given, len(given), "pointing game")):
        images, _ = work.inputs(one.pair)
        _, rows, columns = patch_grid(work.own, images)
        found, attention = work.attributed(one.pair), work.rolled(one.pair)
        if attention is not None:
            points["rollout"].append(pointing(attention.patches, *_boxes_seen(work, one)))
        if not found.gap <= TOLERANCE:
            incomplete += 1
            continue
        points["attribution"].append(pointing(found.patches(rows, columns), *_boxes_seen(work, one)))
        if number < DRAWN:
            _draw_pointing(work, number, one, found, points["attribution"][-1])
    summary: dict[str, Any] = {name: pointing_summary(known) for name, known in points.items() if known}
    return summary | {"incomplete": incomplete}


def _boxes_seen(work: Explaining, one: Pointed) -> tuple[Box, tuple[Box, ...]]:
    """Return the boxes, that of the named thing first, as shares of what the model sees of the picture."""
    kept: float = getattr(work.own.encoder.vision.processor, "crop", 1.0)
    return cropped(one.named, kept), tuple(cropped(other, kept) for other in one.others)


def _draw_pointing(work: Explaining, number: int, one: Pointed, found: Attribution, pointed: Pointing) -> None:
    text, (named, others) = one.pair.text, _boxes_seen(work, one)
    title = f"{'Hit' if pointed.hit else 'Missed'}: {text}"
    path = work.picture(f"pointing-{number + 1}.png", "pointing", title)
    images, _ = work.inputs(one.pair)
    _, rows, columns = patch_grid(work.own, images)
    words = words_of(work.own.encoder.text.processor, text)
    values = zip([word.text for word in words], by_word(found.tokens, words).tolist(), strict=True)
    draw_map(
        path,
        as_seen(images),
        found.patches(rows, columns),
        list(values),
        title=title,
        meaning=ATTRIBUTION,
        signed=True,
        boxes=(named, *others),
    )
