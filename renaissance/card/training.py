"""What a card says of a training: on what, how, what was frozen and when, and what of it is known to overlap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from renaissance.card.figures import count, listed, setting, share, short, square
from renaissance.card.markdown import code, plain, table
from renaissance.card.metadata import data_sets_of
from renaissance.card.private import is_local, last_name
from renaissance.card.sources import Sources
from renaissance.cost import counted
from renaissance.models.freezing import frozen_parameters
from renaissance.models.parts import part_names
from renaissance.recipe import Recipe
from renaissance.recipe.data import Data, ImagesData, PreparedData, StreamData, WorldData
from renaissance.recipe.freezing import Freezing
from renaissance.recipe.start import SavedStart
from renaissance.spec import STARTS, shown
from renaissance.training.stages import Stage, stages_of

# --- data -------------------------------------------------------------------------------------------------------------


def data_table(sources: Sources) -> str:
    """Return a row for each of the data that were trained on: what they are, and their share of the samples."""
    rows = [
        [plain(name or "all"), share(part), f"{told(data)}{_fractions(sources.corpora.get(name, {}))}"]
        for name, part, data in sources.parts
    ]
    return table(("data", "share of the samples", "what they are"), rows, right=("share of the samples",))


def told(data: Data) -> str:
    """Return in words what data are; of a path only the last name is told."""
    match data:
        case WorldData():
            return (
                f"drawn scenes of the generated world: {count(data.train)} to train on and {count(data.test)} held "
                f"out, {count(data.captions)} captions each, {square(data.image_size)}, seed {setting(data.seed)}"
            )
        case ImagesData():
            held = [f"{share(one.share)} held out by {one.by} as {code(one.name)}" for one in data.hold_out]
            return "; ".join([f"images with captions from {place(data.path)}", *held])
        case PreparedData():
            splits = listed([code(split) for split in data.trained])
            return f"the split{'s' * (len(data.trained) > 1)} {splits} of the prepared corpus {place(data.path)}"
        case StreamData():
            at = f" at {code(data.revision)}" if data.revision else ""
            return f"the split {code(data.split)}, streamed from {place(data.source)}{at}"
        case _:
            raise AssertionError("a mixture holds no mixtures")


def place(source: str | None) -> str:
    """Return where data are: a data set of the Hub by its name, and of a path its last name alone."""
    if source is None:
        return "a folder that was given by hand"
    return code(source if source.startswith("hf:") and not is_local(source) else last_name(source))


def _fractions(corpus: Mapping[str, Any]) -> str:
    """Return how much of a published corpus was there, as its manifest says."""
    if not corpus:
        return ""
    parts = [f"{share(part)} of {plain(split)}" for split, part in corpus.get("fraction", {}).items()]
    there = f"; of what was published it holds {listed(parts)}" if parts and not corpus.get("drawn") else ""
    drawn = ", drawn scenes of the generated world in this layout" if corpus.get("drawn") else ""
    return f" (layout {code(corpus['layout'])}{drawn}{there})"


def split_table(scores: Mapping[str, Any]) -> str:
    """Return how much there is in each split that was measured."""
    names = ("items", "images", "captions", "distinct_texts")
    used = [name for name in names if any(name in sizes for sizes in scores["splits"].values())]
    rows = [
        [plain(split), *(count(sizes[name]) if name in sizes else "" for name in used)]
        for split, sizes in scores["splits"].items()
    ]
    columns = ["split", *(name.replace("_", " ") for name in used)]
    return table(columns, rows, right=columns[1:])


def overlap_table(scores: Mapping[str, Any]) -> str:
    """Return what the splits share with the training; empty where nothing was found."""
    found = scores["overlap"]["found"]
    rows = [
        [
            plain(one["split"]),
            f"{count(one['images'])} of {count(one['total'])}",
            plain(one["level"]),
            plain(one["reason"]),
            "yes" if one["waived"] else "no",
        ]
        for one in found
    ]
    columns = ("split", "images that were trained on", "level", "why", "waived")
    return table(columns, rows, right=columns[1:2]) if rows else ""


# --- freezing ---------------------------------------------------------------------------------------------------------


def freezing_table(sources: Sources) -> str:
    """Return a row for each stage of the training: what is frozen in it, and how many parameters are trained."""
    encoder = sources.assembly.encoder
    heads = sum(counted(task).trainable for task in sources.assembly.tasks.values())
    rows = []
    for stage in stages(sources):
        frozen = frozen_parameters(encoder, stage.rules)
        trained = heads + sum(p.numel() for p in encoder.parameters() if id(p) not in frozen)
        rows.append([plain(stage.label), _frozen_parts(sources, frozen), _rules(stage), short(trained)])
    columns = ("from", "frozen parts", "rules", "trained parameters")
    return table(columns, rows, right=columns[3:])


def stages(sources: Sources) -> list[Stage]:
    """Return the stages of the training; without a recipe it is the spec alone that says what was frozen."""
    return stages_of(sources.assembly, Freezing() if sources.recipe is None else sources.recipe.freezing)


def _frozen_parts(sources: Sources, frozen: frozenset[int]) -> str:
    """Return how much of each part holds still: 'vision, 50% of text'."""
    held = []
    for name in part_names(sources.assembly.encoder):
        sizes = {id(p): p.numel() for p in getattr(sources.assembly.encoder, name).parameters()}
        still = sum(size for parameter, size in sizes.items() if parameter in frozen)
        if still:
            held.append(name if still == sum(sizes.values()) else f"{share(still / sum(sizes.values()))} of {name}")
    return ", ".join(held) or "none"


def _rules(stage: Stage) -> str:
    return ", ".join(code(str(rule)) for rule in stage.rules if rule.action not in STARTS) or "none"


# --- the recipe -------------------------------------------------------------------------------------------------------


def start_line(sources: Sources) -> str:
    """Return from which weights the training started."""
    start = None if sources.recipe is None else sources.recipe.start
    if isinstance(start, SavedStart):
        surgery = (sources.scores or {}).get("surgery", {})
        counts = [f"{count(number)} {name}" for name, number in surgery.items()]
        moved = f" ({listed(counts)} tensors)" if counts else ""
        return f"It started from the saved model {_model(start.model)}{moved}{_surgery(start)}."
    weights = [f"{name} ({code(tower.name)}): {tower.start}" for name, tower in sources.towers.items()]
    return f"Weights at the start: {'; '.join(weights)}; all else random."


def _model(name: str) -> str:
    return code(last_name(name) if is_local(name) or name.count("/") != 1 else name)


def _surgery(start: SavedStart) -> str:
    """Return what the start changed in the saved model, as the recipe declares it."""
    declared = {name: value for name, value in start.surgery.model_dump(mode="json").items() if value}
    told = [f"{name.replace('_', ' ')} {code(setting(value))}" for name, value in declared.items()]
    return f"; declared changes: {', '.join(told)}" if told else ""


def recipe_rows(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield what the recipe sets of the training: name and value, as Markdown."""
    budget = {key: value for key, value in recipe.budget.model_dump().items() if value is not None}
    yield "budget", ", ".join(f"{setting(value)} {key}" for key, value in budget.items())
    parts = f", in {count(recipe.batch.accumulation)} parts" if recipe.batch.accumulation > 1 else ""
    yield "batch", f"{count(recipe.batch.size)} pairs or items{parts}"
    yield "tasks, with their weights", ", ".join(f"{code(n)} {setting(t.weight)}" for n, t in recipe.tasks.items())
    yield "learning rate", f"{setting(recipe.optimiser.lr)} (AdamW), decay: {recipe.schedule.decay}"
    yield "weight decay", setting(recipe.optimiser.weight_decay)
    changed = {key: value for key, value in recipe.augmentation.model_dump(mode="json").items() if value}
    if recipe.augmentation.any:
        yield "augmentation", ", ".join(f"{key} {code(setting(value))}" for key, value in changed.items())
    if recipe.ema is not None:
        yield "averaged weights", f"decay {setting(recipe.ema.decay)}"
    if recipe.store is not None:
        yield "stored features", "what is frozen ran once, and was read from a store"
    yield "precision", recipe.precision
    yield "seed", setting(recipe.seed)


def needs_data(sources: Sources) -> str:
    """Return in a sentence which data one must have to run the recipe again."""
    own = [data for _, _, data in sources.parts if data.kind != "world"]
    hub = data_sets_of(sources)
    if not own:
        return "It draws its own data."
    if hub and len(hub) == len(own):
        return f"It reads {listed([code(name) for name in hub])} of the Hub."
    names = dict.fromkeys(place(getattr(data, "path", None) or getattr(data, "source", None)) for data in own)
    return f"It needs the data {listed(list(names))}: say where they lie on your machine, in its keys or by `--data`."


def not_reached(sources: Sources) -> str:
    """Return the stages that the training ended before; empty where it had them all."""
    late = (sources.scores or {}).get("training", {}).get("stages_not_reached", ())
    return f"It ended before: {', '.join(plain(shown(label)) for label in late)}." if late else ""
