"""What a card is made of: the files of a saved model, and the model that its config describes, without weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renaissance.api import SavedBackbone
from renaissance.assemble import Assembly, assemble
from renaissance.errors import ModelFileError, SpecError
from renaissance.manifest import LEDGER, RECIPE, SCORES, TOWERS, read_object, refuse_newer
from renaissance.plain_yaml import parse_yaml
from renaissance.plans import AnyPlan, OneTowerPlan, TowerPlan
from renaissance.recipe import Recipe, validate_recipe
from renaissance.recipe.data import Data, MixtureData
from renaissance.registry import Registry, default_registry
from renaissance.saved_config import SavedConfig, read_config, saved_plan
from renaissance.selftest import unproven

FORMAT = 1  # of scores and ledgers


@dataclass(frozen=True, slots=True)
class Sources:
    """The files of a saved model, read. recipe, scores, ledger: None where the model has none.

    assembly: the model, whose weights are not read. unproven: what its self-test leaves out, with the reasons.
    """

    config: SavedConfig
    plan: AnyPlan
    assembly: Assembly
    recipe: Recipe | None
    scores: Mapping[str, Any] | None
    ledger: Mapping[str, Any] | None
    unproven: Mapping[str, str]

    @property
    def towers(self) -> dict[str, TowerPlan]:
        """The backbones, by the part of the model that each one is."""
        if isinstance(self.plan, OneTowerPlan):
            towers = {"encoder": self.plan.base}
            return (
                towers if self.plan.donor is None else towers | {str(self.plan.donor.entry.modality): self.plan.donor}
            )
        return {"vision": self.plan.vision, "text": self.plan.text}

    @property
    def parts(self) -> list[tuple[str, float, Data]]:
        """The data that were trained on: name, share of the training samples, and where they are from."""
        data = None if self.recipe is None else self.recipe.data
        if data is None:
            return []
        if not isinstance(data, MixtureData):
            return [("", 1.0, data)]
        whole = sum(part.weight for part in data.parts)
        return [(name, part.weight / whole, part.data) for name, part in zip(data.names, data.parts, strict=True)]

    @property
    def drawn(self) -> bool:
        """Whether scenes of the generated world were trained on."""
        return any(data.kind == "world" for _, _, data in self.parts) or any(
            corpus.get("drawn") is True for corpus in self.corpora.values()
        )

    @property
    def corpora(self) -> dict[str, Mapping[str, Any]]:
        """What scores.json says of the prepared corpora that were trained on, by the name of each one."""
        return {corpus.get("name", ""): corpus for corpus in (self.scores or {}).get("corpora", ())}

    @property
    def trained(self) -> list[Mapping[str, Any]]:
        """The scores of the trained model."""
        return [row for row in (self.scores or {}).get("scores", ()) if row["model"] == "trained"]


def read_sources(folder: Path, *, registry: Registry | None = None) -> Sources:
    """Return what the folder of a saved model holds.

    Raises:
        ModelFileError: it holds no model, or a file of it is damaged.
        PluginError: a plugin that the model needs is not installed.
    """
    config = read_config(folder)
    plan = saved_plan(config, folder, registry or default_registry())
    saved = {str(tower): SavedBackbone(config.resolved[tower].config, folder / tower) for tower in TOWERS}
    return Sources(
        config=config,
        plan=plan,
        assembly=assemble(plan, saved=saved),
        recipe=_recipe(folder / RECIPE),
        scores=_facts(folder / SCORES),
        ledger=_facts(folder / LEDGER),
        unproven=unproven(folder),
    )


def _recipe(path: Path) -> Recipe | None:
    if not path.is_file():
        return None
    try:
        return validate_recipe(parse_yaml(path.read_bytes(), what=path.name))
    except SpecError as error:
        raise ModelFileError(f"{path} is no recipe: {error} Copy it from the run again.") from None


def _facts(path: Path) -> Mapping[str, Any] | None:
    """Return what a run noted in a file, None where there is none."""
    if not path.is_file():
        return None
    facts = read_object(path)
    refuse_newer(facts, path, format=FORMAT)
    if facts.get("format") != FORMAT:
        raise ModelFileError(f"{path} says no format that is known ({FORMAT}). Copy it from the run again.")
    return facts
