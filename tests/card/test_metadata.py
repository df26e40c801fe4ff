"""What the Hub understands of a card."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from renaissance.card import check_card, write_card
from renaissance.card.metadata import bases_of, check_metadata, pipeline_of
from renaissance.card.sources import Sources
from renaissance.card.writing import rendered
from renaissance.errors import CardError, HubError
from renaissance.registry import Registry
from renaissance.resolve import resolve
from tests.card.cases import FUSION, LABELS, TOWERS, edit, metadata, with_recipe
from tests.hub_server import PIPELINE_TAGS, HubServer, card_fault


def test_the_metadata_round_trips_through_the_client_and_the_hub_takes_it(finished: Path, hub: HubServer) -> None:
    card = ModelCard.load(finished / "README.md")
    assert str(card) == (finished / "README.md").read_text()
    assert card.data.library_name == "renaissance"
    assert card.data.pipeline_tag == "zero-shot-image-classification"
    rows = [row for row in json.loads((finished / "scores.json").read_text())["scores"] if row["model"] == "trained"]
    assert [(one.task_name, one.metric_name, one.metric_value) for one in card.data.eval_results] == [
        (row["task"], row["name"], round(row["value"], 1)) for row in rows
    ]
    assert all(one.verified is False for one in card.data.eval_results)
    card.validate()
    assert len(hub.asked("POST /api/validate-yaml")) == 1


REFUSED: dict[str, dict[str, Any]] = {
    "licence": {"license": "my-own"},
    "licence without a name": {"license": "other"},
    "language": {"language": "English"},
    "base model": {"base_model": ["a folder/b/c"]},
}


@pytest.mark.parametrize("faulty", REFUSED.values(), ids=REFUSED)
def test_what_the_hub_refuses_is_refused_offline(faulty: dict[str, Any]) -> None:
    assert card_fault(f"---\n{yaml.safe_dump(faulty)}\n---\n")
    with pytest.raises(CardError, match=r"^The metadata of the card: "):
        check_metadata(faulty)


def test_what_a_person_says_stays_and_what_the_hub_does_not_know_is_refused(model: Path) -> None:
    write_card(model, repo="org/tiny", licence="cc-by-4.0", languages=["en", "de"])
    write_card(model)
    text = (model / "README.md").read_text()
    assert metadata(model)["license"] == "cc-by-4.0"
    assert metadata(model)["language"] == ["en", "de"]
    assert metadata(model)["model-index"][0]["name"] == "org/tiny"
    assert "\n# org/tiny\n" in text
    assert 'from_pretrained("org/tiny")' in text
    check_card(model)
    with pytest.raises(CardError, match="license is 'mine', which the Hub does not know"):
        write_card(model, licence="mine")
    with pytest.raises(HubError, match="'tiny' is no repository"):
        write_card(model, repo="tiny")
    assert (model / "README.md").read_text() == text


def test_metadata_that_cannot_be_read_are_told_of(model: Path) -> None:
    edit(model / "README.md", "library_name: renaissance", "library_name: [renaissance")
    with pytest.raises(CardError, match="The metadata of the card cannot be read"):
        check_card(model)


@pytest.mark.parametrize(
    ("spec", "bases", "relation"),
    [
        ("vit-base + bert-base", ["google/vit-base-patch16-224-in21k", "google-bert/bert-base-uncased"], "finetune"),
        ("vit-base + tiny-bert, random text", ["google/vit-base-patch16-224-in21k"], "finetune"),
        ("vit-base + bert-base, lora text, random vision", ["google-bert/bert-base-uncased"], "adapter"),
        ("timm:resnet18.a1_in1k + bert-base, random text", ["timm/resnet18.a1_in1k"], "finetune"),
        ("timm:resnet18 + bert-base, random text", [], None),
        ("bert-base, one-tower", ["google-bert/bert-base-uncased"], "finetune"),
        ("vit-base + bert-base, random both", [], None),
    ],
)
def test_base_models_are_those_that_weights_come_from(
    spec: str, bases: list[str], relation: str | None, sources: Sources
) -> None:
    plan = resolve(spec, ("itm",), registry=Registry())
    assert bases_of(replace(sources, plan=plan, recipe=None)) == (bases, relation)


@pytest.mark.parametrize(
    ("model", "bases"),
    [("org/name@main", ["org/name"]), ("runs/demo", []), ("renaissance/bridge", ["renaissance/bridge"])],
)
def test_a_saved_start_is_a_base_model_where_it_was_surely_of_the_hub(
    model: str, bases: list[str], sources: Sources
) -> None:
    started = with_recipe(sources, start={"model": model})
    assert bases_of(started) == (bases, "adapter" if bases else None)
    assert f"It started from the saved model `{model}`" in rendered(started, None, {})


@pytest.mark.parametrize(
    ("tasks", "tag"),
    [
        ({"itm": {}}, "feature-extraction"),
        ({"itm": {}, "itc": {}}, "zero-shot-image-classification"),
        ({"vqa": LABELS, "itc": {}}, "visual-question-answering"),
        ({"image-classification": LABELS}, "image-classification"),
    ],
)
def test_the_pipeline_is_one_that_the_hub_knows(tasks: dict[str, Any], tag: str, sources: Sources) -> None:
    plan = resolve(f"{TOWERS}, random both, {FUSION}", tasks, registry=Registry())
    assert pipeline_of(replace(sources, plan=plan)) == tag
    assert tag in PIPELINE_TAGS
