"""The metadata of a card: the YAML at its head, which the Hub reads, made and checked offline."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from renaissance.api import Unknown
from renaissance.card.figures import percent
from renaissance.card.hub_terms import LICENCES, NO_LANGUAGES
from renaissance.card.private import last_name
from renaissance.card.sources import Sources
from renaissance.errors import CardError
from renaissance.left_out import repository_of
from renaissance.manifest import REPO
from renaissance.plans import TowerPlan
from renaissance.recipe.data import StreamData
from renaissance.recipe.start import SavedStart
from renaissance.spec import AdapterRule, shown

# what only a person can say of a model; it stays as it was said when the card is made anew
SAID = ("license", "license_name", "license_link", "language", "datasets")
# by what a model is found on the Hub: the first of its tasks that is here decides
PIPELINE_OF = {
    "vqa": "visual-question-answering",
    "image-classification": "image-classification",
    "text-classification": "text-classification",
    "itc": "zero-shot-image-classification",
}
# tasks that the Hub knows by another name
TYPE_OF = {**PIPELINE_OF, "zero-shot-classification": "zero-shot-image-classification", "mlm": "fill-mask"}
WORLD = "renaissance-world"
_LANGUAGE = re.compile(r"[a-z]{2,3}")
_LINK = re.compile(r"https?://[^\s<>]+|LICEN[CS]E(?:\.md|\.txt)?")
_DATA_SET = re.compile(r"[A-Za-z0-9][\w.\-]*(?:/[A-Za-z0-9][\w.\-]*)?", re.ASCII)


def metadata_of(sources: Sources, name: str, said: Mapping[str, Any]) -> ModelCardData:
    """Return the metadata of a model; `said` is what a person says of it, and comes before what is known."""
    results = results_of(sources)
    bases, relation = bases_of(sources)
    data: dict[str, Any] = {
        "language": languages_of(sources) or None,
        "license": None,
        "library_name": "renaissance",
        "pipeline_tag": pipeline_of(sources),
        "tags": tags_of(sources),
        "datasets": data_sets_of(sources) or None,
        "base_model": (bases[0] if len(bases) == 1 else bases) or None,
        "base_model_relation": relation,
    }
    data |= said
    data |= {"model_name": name, "eval_results": results} if results else {}
    return ModelCardData(**data)


def pipeline_of(sources: Sources) -> str:
    """Return the Hub's tag for what a model is for."""
    trained = [task.name for task in sources.plan.tasks.values() if task.entry.trains]
    return next((tag for task, tag in PIPELINE_OF.items() if task in trained), "feature-extraction")


def tags_of(sources: Sources) -> list[str]:
    """Return the words by which a model can be found."""
    spec = sources.plan.spec
    adapted = [rule.action for rule in spec.rules if isinstance(rule, AdapterRule)]
    drawn = ["drawn-scenes"] if sources.drawn else []
    return list(dict.fromkeys(["vision-language", spec.architecture, *sources.plan.tasks, *adapted, *drawn]))


def languages_of(sources: Sources) -> list[str]:
    """Return the languages of the training's texts, as far as its data tell them; scenes are told of in English."""
    drawn = {"en"} if any(data.kind == "world" for _, _, data in sources.parts) else set()
    told = {language for corpus in sources.corpora.values() for language in corpus.get("languages", ())}
    return sorted(drawn | {language for language in told if _LANGUAGE.fullmatch(language)})


def data_sets_of(sources: Sources) -> list[str]:
    """Return the data sets of the Hub that were trained on."""
    streams = [data.source or "" for _, _, data in sources.parts if isinstance(data, StreamData)]
    names = [source.removeprefix("hf:") for source in streams if source.startswith("hf:")]
    return list(dict.fromkeys(name for name in names if _DATA_SET.fullmatch(name)))


# --- what it was made of ----------------------------------------------------------------------------------------------


def bases_of(sources: Sources) -> tuple[list[str], str | None]:
    """Return the models of the Hub that this one has its weights from, and in which relation it is to them."""
    start = None if sources.recipe is None else sources.recipe.start
    if isinstance(start, SavedStart):
        # 'a/b' may as well have been a folder: only what is pinned, or ours, was surely a repository
        name, _, commit = start.model.partition("@")
        bases = [name] if REPO.fullmatch(name) and (commit or name.startswith("renaissance/")) else []
    else:
        named = {source.repository for source in sources.config.left_out.values()}
        pretrained = [tower for tower in sources.towers.values() if tower.pretrained]
        found = (*(repository_of(tower) for tower in pretrained), *sorted(filter(None, named)))
        bases = list(dict.fromkeys(name for name in found if name is not None))
    adapted = any(isinstance(rule, AdapterRule) for rule in sources.plan.spec.rules)
    return bases, ("adapter" if adapted else "finetune") if bases else None


def trained_on(tower: TowerPlan) -> tuple[str, ...]:
    """Return the data that a backbone's pretrained weights have seen, as far as it is known."""
    told = tower.facts.trained_on
    return () if isinstance(told, Unknown) or not tower.pretrained else told


# --- results ----------------------------------------------------------------------------------------------------------


def results_of(sources: Sources) -> list[EvalResult]:
    """Return the scores of the trained model as the Hub takes them, with the digits that the tables have."""
    return [
        EvalResult(
            task_type=TYPE_OF.get(row["task"], row["task"]),
            task_name=row["task"],
            dataset_type=kind,
            dataset_name=name,
            dataset_split=row["split"],
            metric_type=_slug(row["name"]),
            metric_name=row["name"],
            metric_value=float(percent(row["value"])),
            verified=False,
        )
        for row in sources.trained
        for kind, name in (_measured_on(sources, row),)
    ]


def _measured_on(sources: Sources, row: Mapping[str, Any]) -> tuple[str, str]:
    """Return what identifies the data of a score, and what they are called."""
    if row.get("data"):
        return row["data"], row["data"]
    parts = {name: data for name, _, data in sources.parts}
    data = next((data for name, data in parts.items() if row["split"].startswith(f"{name}.")), parts.get(""))
    match data:
        case None:
            return "unknown", "not known"
        case StreamData(source=str(source)) if source.startswith("hf:"):
            return source.removeprefix("hf:"), source.removeprefix("hf:")
        case _ if data.kind == "world":
            return WORLD, "drawn scenes"
        case _:
            place = last_name(str(getattr(data, "path", None) or getattr(data, "source", None) or data.kind))
            return place, place


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower().replace("@", " at ")).strip("_")


# --- what the Hub refuses ---------------------------------------------------------------------------------------------


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Refuse what a person, or a config, says that the Hub would refuse, as far as that is known without asking it.

    Raises:
        CardError: naming the key.
    """
    fault = next(_faults(metadata), None)
    if fault is not None:
        raise CardError(f"The metadata of the card: {fault}.")


def _faults(metadata: Mapping[str, Any]) -> Iterator[str]:
    yield from _licence_faults(metadata)
    for key, pattern, what in (
        ("language", _LANGUAGE, "a code of ISO 639 such as 'en'"),
        ("datasets", _DATA_SET, "a data set of the Hub, 'organisation/name'"),
        ("base_model", REPO, "a model of the Hub, 'organisation/name'"),
    ):
        for value in _values(metadata.get(key)):
            if not (isinstance(value, str) and (pattern.fullmatch(value) or (key, value) in _SPECIAL)):
                yield f"{key} is '{shown(value)}', and should be {what}"


_SPECIAL = frozenset(("language", word) for word in NO_LANGUAGES)


def _licence_faults(metadata: Mapping[str, Any]) -> Iterator[str]:
    for licence in _values(metadata.get("license")):
        if licence not in LICENCES:
            yield (
                f"license is '{shown(licence)}', which the Hub does not know; take an identifier of "
                "https://huggingface.co/docs/hub/repositories-licenses, or 'other' with license_name and license_link"
            )
        if licence == "other" and not (metadata.get("license_name") and metadata.get("license_link")):
            yield "license is 'other', so license_name and license_link must say which"
    link = metadata.get("license_link")
    if link is not None and not _LINK.fullmatch(str(link)):
        yield f"license_link is '{shown(link)}', and should be an address, or the file LICENSE of the repository"


def _values(value: object) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]
