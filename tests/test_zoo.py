"""What ships: the models of the zoo, the towers that they start from, and the recipes of both."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

import renaissance
from renaissance.builtin import towers
from renaissance.card import check_card
from renaissance.cli import main
from renaissance.errors import CapabilityError, HubError, PluginError, SpecError
from renaissance.recipe import load_recipe
from renaissance.registry import default_registry
from renaissance.resolve import resolve
from renaissance.training.start import start
from renaissance.uses import select_tasks
from renaissance.zoo import COUNTED, Card, bundled, cards
from tests.hub_server import HubServer, use

# huggingface_hub gives its HTTP client large files in a way that the client wants written otherwise
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes" / "zoo"
CARDS = cards()
TOKEN = "secret-of-org"
PICTURE = Image.linear_gradient("L").convert("RGB")
TOWERS = "tiny-vit + tiny-bert"

each = pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("zoo")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer(tokens={TOKEN: "org"}) as server:
        use(server, monkeypatch)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def needs_its_plugin(card: Card) -> None:
    if "packaged" in card.config["plugins"] and default_registry().plugin("packaged") is None:
        pytest.skip("the plugin 'packaged' is not installed")


# --- the models -------------------------------------------------------------------------------------------------------


def test_every_model_has_its_recipe() -> None:
    assert len(CARDS) >= 11
    assert {card.name for card in CARDS} == {path.stem for path in RECIPES.glob("*.yaml")}


@each
def test_a_model_loads_by_its_name_and_gives_what_it_gave(card: Card) -> None:
    needs_its_plugin(card)  # loading verifies sizes and digests, and runs the self-test
    model = renaissance.from_pretrained(card.repository)
    assert not model.assembly.training
    vectors = model.embed([PICTURE], ["a red star"])
    assert vectors.images is not None
    assert torch.isfinite(vectors.images).all()


@each
def test_its_card_says_what_lies_beside_it(card: Card) -> None:
    needs_its_plugin(card)
    check_card(card.folder)


@each
def test_it_is_three_standard_deviations_above_its_untrained_twin(card: Card) -> None:
    above = {name: card.deviations(key) for name, key in COUNTED}
    assert all(value is None or value >= 3 for value in above.values()), above
    assert above["text R@1"] is not None
    assert (above["ITM accuracy"] is None) is ("itm" not in card.tasks)


@each
def test_it_is_small(card: Card) -> None:
    assert card.size <= 3_000_000


@each
def test_it_was_trained_by_the_recipe_that_is_here(card: Card) -> None:
    assert load_recipe(card.folder / "recipe.yaml") == load_recipe(RECIPES / f"{card.name}.yaml")


@each
def test_what_it_has_seen_is_said(card: Card) -> None:
    drawn = not card.name.startswith("pictures")
    assert card.drawn is drawn
    assert ("drawn scenes" in card.domain) is drawn
    assert ("Its domain is drawn scenes" in (card.folder / "README.md").read_text(encoding="utf-8")) is drawn


def test_a_dual_encoder_matches_nothing() -> None:
    model = renaissance.from_pretrained("renaissance/dual-encoder")
    with pytest.raises(CapabilityError, match="needs a head trained for 'itm'"):
        model.match([PICTURE], ["a red star"])


def test_a_training_starts_from_a_bundled_model_without_a_network() -> None:
    recipe = {"start": {"model": "renaissance/dual-encoder"}, "tasks": {"itc": {}}}
    chosen = renaissance.Recipe.model_validate(recipe)
    registry = default_registry()
    assembly, surgery = start(chosen, select_tasks(chosen, registry), registry)
    assert surgery["new"] == []
    assert set(assembly.tasks) == {"itc"}


@pytest.mark.parametrize("name", ["renaissance/none", "renaissance/../builtin", "other/bridge", "bridge", ""])
def test_what_does_not_ship_is_not_found(name: str) -> None:
    assert bundled(name) is None


def test_a_revision_asks_the_hub(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(HubError):
        renaissance.from_pretrained("renaissance/bridge", revision="main", cache_dir=tmp_path)
    assert hub.requests


# --- the towers -------------------------------------------------------------------------------------------------------


def test_the_towers_are_pretrained_unless_a_spec_says_random() -> None:
    one, two = (renaissance.build(TOWERS, seed=seed).encoder for seed in (0, 1))
    other = renaissance.build(f"{TOWERS}, random both").encoder
    for tower in ("vision", "text"):
        states = [getattr(encoder, tower).state_dict() for encoder in (one, two, other)]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
        assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_fewer_layers_are_the_first_ones() -> None:
    whole, cut = renaissance.build(TOWERS).encoder, renaissance.build("tiny-vit[:3] + tiny-bert[:2]").encoder
    for tower in ("vision", "text"):
        all_of_it, part = getattr(whole, tower).state_dict(), getattr(cut, tower).state_dict()
        assert set(part) < set(all_of_it)
        assert all(torch.equal(part[name], all_of_it[name]) for name in part)


@pytest.mark.parametrize("sizes", ["tiny-vit(width=64) + tiny-bert", "tiny-vit + tiny-bert(max_tokens=32)"])
def test_other_sizes_have_no_weights(sizes: str) -> None:
    with pytest.raises(SpecError, match="pretrained weights of its default sizes alone, or of fewer layers"):
        resolve(sizes)


def test_dropout_and_pooling_are_free() -> None:
    assert resolve('tiny-vit(dropout=0.1) + tiny-bert(dropout=0.0, pooling="first")').text.weights == "pretrained"


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-bert"])
def test_a_tower_is_small_and_has_its_recipe(name: str) -> None:
    assert (towers.FOLDER / f"{name}.safetensors").stat().st_size <= 3_000_000
    assert load_recipe(RECIPES / "towers" / f"{name}.yaml").name == name


def test_towers_and_models_learn_from_other_scenes_than_any_is_tested_on(benchmarks: ModuleType) -> None:
    data = importlib.import_module("zoo_data")
    seen = [data.draw_world(300, seed, ["en"]) for seed in (data.TOWERS_SEED, data.MODELS_SEED)]
    trained = {picture.scene.graph() for world in seen for picture in world.by_split["train"]}
    tested = {picture.scene.graph() for picture in seen[1].by_split["test"]}
    assert trained
    assert tested
    assert not trained & tested


# --- recipes and the page ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_of_the_zoo_resolves_and_has_its_own_name(path: Path) -> None:
    recipe = load_recipe(path)
    if "packaged:" in path.read_text() and default_registry().plugin("packaged") is None:
        pytest.skip("the plugin 'packaged' is not installed")
    resolve(recipe.start, select_tasks(recipe, default_registry()).options)
    assert recipe.name == path.stem


def test_arms_of_the_freezing_study_differ_in_what_is_frozen_alone() -> None:
    arms = [load_recipe(path).dump() for path in sorted((RECIPES / "paper").glob("freezing-*.yaml"))]
    small = [arm for arm in arms if not arm["name"].endswith("-base")]
    assert len(small) == 4
    for arm in small:
        arm.pop("name")
        arm["start"].pop("rules")
    assert all(arm == small[0] for arm in small)


def test_the_page_says_what_lies_beside_the_models(benchmarks: ModuleType) -> None:
    text = (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
    rows = benchmarks.table(benchmarks.HEADER, [benchmarks.row(card) for card in CARDS])
    assert f"<!-- rows: zoo -->\n{rows}\n<!-- /rows -->" in text


def test_a_model_that_falls_short_is_told(benchmarks: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    card = CARDS[0]
    assert benchmarks.short(card) == []
    monkeypatch.setattr(benchmarks, "LARGEST", 1000)
    monkeypatch.setattr(benchmarks, "ABOVE", 1e9)
    assert len(benchmarks.short(card)) >= 2


def test_a_table_is_put_between_its_marks_alone(benchmarks: ModuleType) -> None:
    page = "above\n<!-- rows: zoo -->\nold\n<!-- /rows -->\nbelow\n"
    assert benchmarks.filled(page, "zoo", "new") == page.replace("old", "new")
    for damaged in (page.replace("rows: zoo", "row: zoo"), page.replace("/rows", "/row")):
        with pytest.raises(SystemExit, match=r"The page has no table 'zoo'\. Put it between '<!-- rows: zoo -->' and"):
            benchmarks.filled(damaged, "zoo", "new")


def test_models_of_pictures_are_trained_again_on_other_pictures(
    benchmarks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[bytes] = []

    def train(recipe: Any, *, out: Path, data: str) -> None:
        trained.append((tmp_path / data / "picture.png").read_bytes())
        out.mkdir(parents=True)
        (out / "scores.json").touch()

    monkeypatch.setattr(renaissance, "run", train)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "picture.png").write_text(name)
        shop = benchmarks.Workshop(tmp_path, tmp_path / name)
        for _ in range(2):
            shop.trained(RECIPES / "pictures-two-tower.yaml", "run", made_of="")
    assert trained == [b"first", b"second"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_model_trained_twice_is_the_same_to_the_bit(
    benchmarks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = importlib.import_module("zoo_data")
    data.write_captions(Path("zoo"), "models", data.MODELS_SEED)
    shop = benchmarks.Workshop(Path(), ROOT)
    recipe = RECIPES / "dual-encoder.yaml"
    runs = [shop.trained(recipe, name, made_of="") for name in ("first", "second")]
    first, second = ((run / "model" / "model.safetensors").read_bytes() for run in runs)
    assert first == second


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_lists_scores_sizes_and_flops(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo"]) == 0
    out, told = capsys.readouterr()
    assert all(card.repository in out for card in CARDS)
    assert "drawn scenes alone" in told


def test_the_command_tells_machines_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "--json"]) == 0
    models: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["models"]
    assert [model["name"] for model in models] == [card.repository for card in CARDS]
    for model, card in zip(models, CARDS, strict=True):
        assert model["bytes"] == card.size
        assert model["training_flops"] > 0
        assert {row["model"] for row in model["scores"]} == {"trained"}


def test_all_are_published_once(hub: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["dual-encoder", "one-tower-text-base"]
    for _ in range(2):
        assert main(["zoo", "publish", *names, "--organisation", "org"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.endswith("was there already") for line in out] == [False, False, True, True]
    assert len(hub.asked("POST .*/commit/")) == len(names)


def test_publishing_all_asks_for_every_model(hub: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "publish", "--all", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert all(card.repository in out for card in CARDS)
    assert hub.requests == []


def test_nothing_is_published_where_one_model_needs_a_plugin_that_is_missing(
    hub: HubServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RENAISSANCE_PLUGINS", "")
    default_registry.cache_clear()
    try:
        names = ["dual-encoder", "pictures-dual-encoder"]
        assert main(["zoo", "publish", *names, "--organisation", "org"]) == PluginError.exit_code
    finally:
        default_registry.cache_clear()
    out, told = capsys.readouterr()
    assert "needs the plugin 'packaged'. Try: pip install renaissance-plugin-packaged" in told
    assert (out, hub.requests) == ("", [])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "or say --all"),
        (["dual-encoder", "--all"], "or say --all"),
        (["dual-encode"], "Did you mean 'dual-encoder'?"),
        (["mine"], "is called 'mine'. See 'renaissance zoo'."),
    ],
)
def test_what_to_publish_is_said_once(capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    assert main(["zoo", "publish", *arguments]) == 2
    assert told in capsys.readouterr().err
