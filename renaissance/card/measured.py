"""What a card says of measurements: scores with their intervals, what the training took, and where the limits are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from renaissance.card.figures import count, interval, listed, memory, percent, saved, seconds, setting, short
from renaissance.card.markdown import code, plain, table
from renaissance.card.metadata import trained_on
from renaissance.card.sources import Sources
from renaissance.cost import counted

Row = Mapping[str, Any]
# beside the trained model: what each other model is, by its name in scores.json
BESIDE = {"untrained": "untrained", "bridge": "linear bridge"}
# and the trained model where one modality says nothing
BLIND = {"vision": "other images", "text": "other texts", "twin": "blind twin"}
COLUMNS = {
    "other images": "the same model, where each image is that of another sample",
    "other texts": "the same model, where each text is that of another sample",
    "blind twin": "a model that was trained on images, or texts, of other samples",
    "untrained": "the model before its training",
    "linear bridge": "a linear map between what the frozen towers give",
}
MEMORY = {"rss": "resident", "gpu": "GPU"}
SMALL = 50_000_000  # parameters, below which what is known of large encoders is not to be expected
MANY_TIES = 1.0  # percent

# --- scores -----------------------------------------------------------------------------------------------------------


def score_table(sources: Sources) -> str:
    """Return a row for each score of the trained model, the primary one in bold, beside what it is to be seen by."""
    scores = sources.scores or {}
    blind, beside = _compared(sources)
    columns = ["split", "task", "score", "value [95%]", "n", "chance", *(BLIND[name] for name in blind)]
    columns += [BESIDE[model] for model in beside]
    rows = [
        [
            *_names(row, scores.get("primary")),
            f"{percent(row['value'])} {interval(row['low'], row['high'])}",
            count(row["n"]),
            percent(row["chance"]),
            *(_blind(row, name) for name in blind),
            *(percent(rows[_key(row)]["value"]) if _key(row) in rows else "" for rows in beside.values()),
        ]
        for row in sources.trained
    ]
    return table(columns, rows, right=columns[3:])


def column_notes(sources: Sources) -> Iterator[str]:
    """Yield what the columns of the scores mean."""
    blind, beside = _compared(sources)
    named = (sources.scores or {}).get("primary") is not None
    bold = "; the score in **bold** was named before the training" if named else ""
    yield f"*value*: percent, with its 95% bootstrap interval over images{bold}"
    yield "*n*: decisions; *chance*: what guessing gives"
    there = [BLIND[name] for name in blind] + [BESIDE[model] for model in beside]
    yield from (f"*{column}*: {meaning}" for column, meaning in COLUMNS.items() if column in there)


def _compared(sources: Sources) -> tuple[list[str], dict[str, dict[tuple[str, ...], Row]]]:
    """Return what stands beside the scores: which blind ones there are, and the scores of which other models."""
    blind = [name for name in BLIND if any(_blind(row, name) for row in sources.trained)]
    others = {model: _by_key(sources.scores or {}, model) for model in BESIDE}
    return blind, {model: rows for model, rows in others.items() if rows}


def _by_key(scores: Mapping[str, Any], model: str) -> dict[tuple[str, ...], Row]:
    return {_key(row): row for row in scores.get("scores", ()) if row["model"] == model}


def _key(row: Row) -> tuple[str, ...]:
    return row.get("data", ""), row["split"], row["task"], row["name"]


def _names(row: Row, primary: str | None) -> list[str]:
    split = "/".join(filter(None, (row.get("data", ""), row["split"])))
    names = [split, row["task"], row["name"]]
    counts = not row.get("data") and "/".join(names) == primary
    return [f"**{plain(name)}**" if counts else plain(name) for name in names]


def _blind(row: Row, name: str) -> str:
    value = (row.get("blind") or {}).get(name)
    return "" if value is None else percent(value)


# --- what it took -----------------------------------------------------------------------------------------------------


def flops_table(ledger: Mapping[str, Any]) -> str:
    """Return the FLOPs of the training by part, and of all of it."""
    ways = ("forward", "backward", "recomputed")
    rows = [
        [plain(part), *(short(taken[way]) for way in ways)]
        for part, taken in ledger["flops"].items()
        if part == "total" or any(taken[way] for way in ways)
    ]
    return table(("FLOPs", *ways), rows, right=ways)


def saving_table(ledger: Mapping[str, Any]) -> str:
    """Return what the training would have taken with nothing frozen, and without a store, beside what it took."""
    compared = ledger["compared"]
    whole = compared["nothing frozen"]
    rows = [
        [plain(name), "not known" if flops is None else short(flops), _saved(whole, flops, name)]
        for name, flops in compared.items()
    ]
    return table(("training", "FLOPs", "saved"), rows, right=("FLOPs", "saved"))


def _saved(whole: int | None, flops: int | None, name: str) -> str:
    return saved(whole, flops) if whole and flops is not None and name != "nothing frozen" else ""


def time_table(ledger: Mapping[str, Any]) -> str:
    """Return the seconds of each phase: as the clock went, and of the processors."""
    wall, cpu = ledger["wall_seconds"], ledger["cpu_seconds"]
    rows = [
        [plain(phase), seconds(wall.get(phase, 0.0)), seconds(cpu.get(phase, 0.0))]
        for phase in dict.fromkeys((*wall, *cpu))
        if wall.get(phase) or cpu.get(phase)
    ]
    return table(("phase", "seconds", "CPU seconds"), rows, right=("seconds", "CPU seconds"))


def run_lines(ledger: Mapping[str, Any]) -> Iterator[str]:
    """Yield what else the ledger says: length, peak memory, machine."""
    yield f"{count(ledger['updates'])} updates, {count(ledger['samples'])} samples"
    peaks = [
        f"{memory(value)} ({MEMORY.get(name, plain(name))})" for name, value in ledger["peak_memory_bytes"].items()
    ]
    if peaks:
        yield f"peak memory: {listed(peaks)}"
    facts = [f"{name} {_fact(value)}" for name, value in ledger["machine"].items() if value is not None]
    yield f"machine: {'; '.join(facts)}"


def _fact(value: object) -> str:
    return plain(value) if isinstance(value, str) else setting(value)


# --- limits -----------------------------------------------------------------------------------------------------------


def domain(sources: Sources) -> str:
    """Return that the model knows drawn scenes, which must be said first; empty where it was not trained on any."""
    if not sources.drawn:
        return ""
    drawn = {name for name, corpus in sources.corpora.items() if corpus.get("drawn") is True}
    others = [name for name, _, data in sources.parts if data.kind != "world" and name not in drawn]
    if others:
        return f"A part of its training is **drawn scenes, not photographs**; the rest is {listed(_codes(others))}."
    seen = [f"{name} ({code(tower.name)})" for name, tower in sources.towers.items() if trained_on(tower)]
    towers = f" (pretrained on other data: {listed(seen)})" if seen else ""
    return (
        "**Its domain is drawn scenes, not photographs.** It was trained on pictures that a program drew, with texts "
        f"that the same program wrote{towers}. What it says of a photograph was not measured, and is not to be "
        "relied on."
    )


def limits(sources: Sources) -> Iterator[str]:
    """Yield what a model is not good for, or not known to be, as its files tell."""
    if text := domain(sources):
        yield text
    yield from _score_limits(sources)
    yield from _model_limits(sources)


def _score_limits(sources: Sources) -> Iterator[str]:
    scores = sources.scores
    if scores is None or not sources.trained:
        yield "Nothing was measured: how good it is at anything is not known."
        return
    if overlaps := scores["overlap"]["found"]:
        shared = listed(_codes([one["split"] for one in overlaps]))
        yield f"Images of {shared} were trained on, so scores there are not those of new images (see *Overlaps*)."
    if weak := [_path(row) for row in sources.trained if row["low"] <= row["chance"]]:
        yield f"Not told apart from chance: {listed(weak)}."
    if tied := [f"{_path(row)} ({percent(row['ties'])}%)" for row in sources.trained if row["ties"] > MANY_TIES]:
        yield f"Many decisions tied, which count as wrong: {listed(tied)}."
    if scores["skipped"]:
        yield f"Samples that could not be used were left out: {count(len(scores['skipped']))} notes in scores.json."


def _model_limits(sources: Sources) -> Iterator[str]:
    size = counted(sources.assembly).total
    if size < SMALL:
        yield f"It is a small model ({short(size)} parameters), made for study and for work on a CPU."
    if sources.recipe is not None:
        yield (
            f"This is one training, with seed {setting(sources.recipe.seed)}: the intervals tell how scores change "
            "with the test samples, and not how they change with the seed."
        )
    for name, tower in sources.towers.items():
        if data := trained_on(tower):
            yield (
                f"Its pretrained {name} tower ({code(tower.name)}) has seen {plain(listed(data))}, and has what these "
                "lack and are biased to; what they share with the splits above is not known."
            )
    if faults := [name for name, there in sources.plan.spec.as_published if there]:
        yield f"It has faults of the published code, on purpose: {listed(_codes(faults))}."
    for what, why in sources.unproven.items():
        yield f"Its self-test leaves out {code(what)}, which it cannot take ({plain(why)})."
    longest = next((n for tower in sources.towers.values() if isinstance(n := tower.facts.max_tokens, int)), None)
    if longest is not None:
        yield f"Texts are cut off after {count(longest)} tokens."


def _path(row: Row) -> str:
    return code("/".join(filter(None, _key(row))))


def _codes(names: Iterable[str]) -> list[str]:
    return [code(name) for name in names]
