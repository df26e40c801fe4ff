"""A card from the files of a saved model, through a template; what a person added to the card before is kept."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from renaissance.assemble import Assembly
from renaissance.card.figures import listed, short
from renaissance.card.keeping import YOURS, check_replaceable, kept_of
from renaissance.card.markdown import bullets, code, plain, table
from renaissance.card.measured import (
    column_notes,
    domain,
    flops_table,
    limits,
    run_lines,
    saving_table,
    score_table,
    time_table,
)
from renaissance.card.metadata import check_metadata, metadata_of
from renaissance.card.picture import picture
from renaissance.card.private import check_private
from renaissance.card.sources import Sources, read_sources
from renaissance.card.training import (
    data_table,
    freezing_table,
    needs_data,
    not_reached,
    overlap_table,
    recipe_rows,
    split_table,
    start_line,
)
from renaissance.card.usage import packages, stored, usage
from renaissance.cost import counted
from renaissance.durable import write_atomically
from renaissance.errors import ModelFileError
from renaissance.hub import check_name
from renaissance.manifest import CARD, LEDGER, SCORES, model_in, read_manifest, relist
from renaissance.plans import OneTowerPlan
from renaissance.registry import Registry
from renaissance.saved_config import read_config
from renaissance.selftest import unproven
from renaissance.shorthand import format_spec
from renaissance.spec import shown

_WORD = re.compile(r"[\w.:\-]+")
TEMPLATE = "card.md.jinja"
_NO_LICENCE = (
    "Its owner has not said under which licence it may be used, so all rights are reserved. To say it: "
    "`renaissance card FOLDER --write --license apache-2.0`."
)


def card_of(
    folder: str | Path,
    *,
    repo: str | None = None,
    licence: str | None = None,
    languages: Sequence[str] = (),
    registry: Registry | None = None,
) -> str:
    """Return the card of the model that is saved in `folder`, made from its files.

    repo: what it is called on the Hub. licence: the Hub's identifier of one; languages: codes of ISO 639. What is not
    given is that of the card that is there already, and so is all that stands below `<!-- yours -->` in it.

    Raises:
        CardError: the card would tell a secret or a local path, or say what the Hub refuses.
        ModelFileError: there is no saved model, or a file of it is damaged.
        HubError: `repo` is no name of a repository.
    """
    folder = model_in(Path(folder))
    if repo is not None:
        check_name(repo)
    sources = read_sources(folder, registry=registry)
    return card_from(sources, folder, repo=repo, licence=licence, languages=languages)


def card_from(
    sources: Sources,
    folder: Path,
    *,
    repo: str | None = None,
    licence: str | None = None,
    languages: Sequence[str] = (),
) -> str:
    """Return the card that says what the sources say, and what the card in `folder` is to keep; see `card_of`.

    Raises:
        CardError: the card would tell a secret or a local path, or say what the Hub refuses.
        ModelFileError: scores or ledger are not what a run writes.
    """
    kept = kept_of(folder)
    said = dict(kept.said)
    if licence is not None:
        said = {key: value for key, value in said.items() if not key.startswith("license")} | {"license": licence}
    if languages:
        said["language"] = list(languages)
    try:
        text = rendered(sources, repo or kept.repo, said) + kept.yours
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # files of a run that someone changed
        raise ModelFileError(
            f"{folder} has no card, for its {SCORES} or {LEDGER} is not what a run writes ({type(error).__name__}: "
            f"{shown(error)}). Copy them from the run again."
        ) from error
    check_private(text, CARD)
    return text


def card_of_held(assembly: Assembly, folder: Path, *, repo: str) -> str:
    """Return the card of a model that is in memory, and was just saved in `folder`: it has no run, and so no scores.

    Raises:
        CardError: the card would tell a secret or a local path.
    """
    sources = Sources(read_config(folder), assembly.plan, assembly, None, None, None, unproven(folder))
    text = rendered(sources, repo, {}) + "\n"
    check_private(text, CARD)
    return text


def write_card(
    folder: str | Path,
    *,
    repo: str | None = None,
    licence: str | None = None,
    languages: Sequence[str] = (),
    registry: Registry | None = None,
) -> Path:
    """Write the card of a saved model into its folder, and into its manifest; return its path. See `card_of`.

    Raises:
        CardError: there is a card that someone wrote by hand, without the mark below which their words are kept.
        OutputError: it cannot be written.
    """
    folder = model_in(Path(folder))
    path = folder / CARD
    check_replaceable(folder, read_manifest(folder).files.get(CARD))
    write_atomically(path, card_of(folder, repo=repo, licence=licence, languages=languages, registry=registry))
    relist(folder, CARD)
    return path


# --- the template -----------------------------------------------------------------------------------------------------


def rendered(sources: Sources, repo: str | None, said: Mapping[str, Any]) -> str:
    """Return the text of a card up to the mark below which a person writes.

    Raises:
        CardError: what was said of the model is nothing that the Hub understands.
    """
    name = repo or _name(sources)
    metadata: Any = metadata_of(sources, name, said)
    check_metadata(metadata.to_dict())
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    template = environment.from_string(files("renaissance.card").joinpath(TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        metadata=metadata.to_yaml(),
        title=name if repo or _WORD.fullmatch(name) else plain(name),
        mark=YOURS,
        spec=format_spec(sources.plan.spec),
        summary=_summary(sources),
        domain=domain(sources),
        picture=picture(sources),
        packages=packages(sources),
        usage=usage(sources, repo),
        stored=" ".join(stored(sources)),
        freezing=freezing_table(sources),
        not_reached=not_reached(sources),
        limits=bullets(limits(sources)),
        licence=_licence(said),
        **_training(sources),
        **_scores(sources),
        **_ledger(sources),
    )


def _name(sources: Sources) -> str:
    """Return what a model is called that has no repository: the name of its recipe, or of its scores."""
    named = (sources.scores or {}).get("name", "Vision-language encoder")
    return str(named if sources.recipe is None else sources.recipe.name)


def _summary(sources: Sources) -> str:
    plan, size = sources.plan, counted(sources.assembly)
    towers = [f"{code(tower.name)} ({part})" for part, tower in sources.towers.items()]
    one = "one stack of blocks for both"
    joined = one if isinstance(plan, OneTowerPlan) else f"joined by {code(plan.fusion.name)}"
    tasks = [code(task.name) for task in plan.tasks.values() if task.entry.trains]
    trained = f"Trained for {listed(tasks)}." if tasks else "It has no heads: it was trained for nothing by itself."
    return (
        f"A {plan.spec.architecture} encoder of images and texts: {listed(towers)}, {joined}. {trained} "
        f"It has {short(size.total)} parameters; its spec trains {short(size.trainable)} of them."
    )


def _licence(said: Mapping[str, Any]) -> str:
    licence = said.get("license")
    if licence is None:
        return _NO_LICENCE
    if licence == "other":
        return f"{plain(said['license_name'])}: <{said['license_link']}>"
    return f"{code(licence)}, for the weights of this model; what its data and its pretrained towers ask for holds too."


def _training(sources: Sources) -> dict[str, Any]:
    """Return what the template says of the recipe; nothing of it where there is none."""
    if sources.recipe is None:
        return {"recipe": False}
    return {
        "recipe": True,
        "data": data_table(sources),
        "corpora": any("fraction" in corpus for corpus in sources.corpora.values()),
        "start": start_line(sources),
        "settings": table(("setting", "value"), map(list, recipe_rows(sources.recipe))),
        "needs": needs_data(sources),
    }


def _scores(sources: Sources) -> dict[str, Any]:
    if sources.scores is None or not sources.trained:
        return {"scores": ""}
    return {
        "scores": score_table(sources),
        "columns": bullets(column_notes(sources)),
        "splits": split_table(sources.scores),
        "overlaps": overlap_table(sources.scores),
        "compared": plain(sources.scores["overlap"]["checked"]),
    }


def _ledger(sources: Sources) -> dict[str, Any]:
    ledger = sources.ledger
    if ledger is None:
        return {"ledger": False}
    return {
        "ledger": True,
        "run": bullets(run_lines(ledger)),
        "flops": flops_table(ledger),
        "savings": saving_table(ledger),
        "times": time_table(ledger),
    }
