"""Training from stores: the same losses and weights, bit for bit, and towers that are not called."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from renaissance.data.cache import cache_folder
from renaissance.data.world.write import prepare_world
from renaissance.errors import FeatureStoreError, SampleError, SpecError
from renaissance.features.store import FeatureStore
from renaissance.progress import Silent
from renaissance.recipe import validate_recipe
from renaissance.recipe.data import WorldData
from renaissance.registry import default_registry
from renaissance.training import loop
from renaissance.training.ledger_file import read_ledger
from renaissance.training.run import run
from renaissance.training.stores import wishes_of_recipe

Recipes = Callable[..., dict[str, Any]]
STEPS = 4


def note(ran: set[str], name: str, block: nn.Module, *_: Any) -> None:
    """Note a tower's call, but for that of the copy without values on which FLOPs are counted."""
    if not isinstance(next(block.parameters()), FakeTensor):
        ran.add(name)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count in which updates the first block of each tower runs."""
    counted: Counter[str] = Counter()
    real = loop.update

    def update(model: Any, *arguments: Any, **options: Any) -> Any:
        ran: set[str] = set()
        hooks = [
            getattr(model.encoder, name).blocks[0].register_forward_hook(partial(note, ran, name))
            for name in ("vision", "text")
        ]
        output = real(model, *arguments, **options)
        for hook in hooks:
            hook.remove()
        counted.update(ran)
        return output

    monkeypatch.setattr(loop, "update", update)
    return counted


def both(recipe: dict[str, Any], folder: Path, calls: Counter[str]) -> tuple[Counter[str], Counter[str]]:
    """Run without and with a store, check that losses, scores and weights are the same; return the calls of each."""
    measured = recipe.pop("measure", {"retrieval": {}})
    recipe = {**recipe, "evaluation": {"tasks": measured, "untrained": False}}
    counts = []
    for name, store in (("plain", False), ("stored", {"folder": str(folder / "store")})):
        calls.clear()
        run({**recipe, "store": store}, out=folder / name)
        counts.append(calls.copy())
    plain, stored = folder / "plain", folder / "stored"
    weights = load_file(plain / "model" / "model.safetensors"), load_file(stored / "model" / "model.safetensors")
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert losses(plain) == losses(stored)
    assert json.loads((plain / "scores.json").read_text())["scores"] == scores(stored)
    return counts[0], counts[1]


def losses(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if "loss" in name} for line in lines]


def scores(folder: Path) -> Any:
    return json.loads((folder / "scores.json").read_text())["scores"]


PLAIN_TEXT = {"itm": {}, "itc": {"options": {"width": 16}}}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, int]]] = {
    "vision": ("frozen vision", {**PLAIN_TEXT, "mlm": {}}, {"text": STEPS}),
    "text": ("frozen text", PLAIN_TEXT, {"vision": STEPS}),
    "both": ("frozen both", PLAIN_TEXT, {}),
    "both, masked text": ("frozen both", {**PLAIN_TEXT, "mlm": {}}, {"text": STEPS}),
    "first layers of both": ("frozen vision[:1], frozen text[:1]", PLAIN_TEXT, {}),
    "first layers, masked text": ("frozen vision[:1], frozen text[:1]", {**PLAIN_TEXT, "mlm": {}}, {"text": STEPS}),
}


@pytest.mark.parametrize(("rules", "tasks", "called"), CASES.values(), ids=CASES.keys())
def test_training_from_a_store_is_the_same_bit_for_bit(
    rules: str,
    tasks: dict[str, Any],
    called: dict[str, int],
    tiny_recipe: Recipes,
    tiny_spec: Callable[..., str],
    calls: Counter[str],
    tmp_path: Path,
) -> None:
    recipe = tiny_recipe(start=tiny_spec(rules, dropout=0.1), tasks=tasks, budget={"steps": STEPS})
    plain, stored = both(recipe, tmp_path, calls)
    assert plain == {"vision": STEPS, "text": STEPS}
    assert stored == called


def test_layers_that_a_head_reads_come_from_the_store(
    tiny_recipe: Recipes, tiny_spec: Callable[..., str], calls: Counter[str], tmp_path: Path
) -> None:
    recipe = tiny_recipe(start=tiny_spec("frozen both", fusion="bridge"), tasks={"itm": {}}, measure={"itm": {}})
    assert both(recipe, tmp_path, calls)[1] == {}


@pytest.mark.parametrize(("fusion", "dtype"), [("lxmert", "fp16"), ("bridge", "bf16")])
def test_what_is_stored_in_fewer_bits_trains_too(
    fusion: str, dtype: str, tiny_recipe: Recipes, tiny_spec: Callable[..., str], tmp_path: Path
) -> None:
    recipe = tiny_recipe(start=tiny_spec("frozen both", fusion=fusion), tasks={"itm": {}}, budget={"steps": STEPS})
    store = {"folder": str(tmp_path / "store"), "dtype": dtype}
    done = run({**recipe, "evaluation": {"untrained": False}, "store": store}, out=tmp_path / "run")
    assert all(line["loss/itm"] > 0 for line in losses(done.folder))


def test_augmented_views_come_from_the_store(
    tiny_recipe: Recipes, tiny_spec: Callable[..., str], calls: Counter[str], tmp_path: Path
) -> None:
    augmentation = {"crop": [0.4, 1.0], "flip": True, "views": 2}
    recipe = tiny_recipe(start=tiny_spec("frozen vision"), augmentation=augmentation, budget={"steps": 8})
    assert both(recipe, tmp_path, calls)[1] == {"text": 8}
    (folder,) = [place for place in (tmp_path / "store").iterdir() if place.name != "contents"]
    assert len(FeatureStore.open(folder)) == 2 * 24 + 6


def test_views_bind_training_without_a_store_too(
    tiny_recipe: Recipes, tiny_spec: Callable[..., str], tmp_path: Path
) -> None:
    for name, views in (("one", 1), ("any", None)):
        changes = {"crop": [0.3, 0.5], "views": views}
        run(
            tiny_recipe(augmentation=changes, budget={"steps": 8}, evaluation={"untrained": False}), out=tmp_path / name
        )
    assert losses(tmp_path / "one") != losses(tmp_path / "any")


def test_a_schedule_that_thaws_the_last_layers_stores_the_first(
    tiny_recipe: Recipes, tiny_spec: Callable[..., str], calls: Counter[str], tmp_path: Path
) -> None:
    freezing = {"stages": [{"at": 2, "thaw": ["vision[1:]"]}]}
    recipe = tiny_recipe(start=tiny_spec("frozen vision"), tasks=PLAIN_TEXT, freezing=freezing)
    assert both(recipe, tmp_path, calls)[1] == {"text": STEPS}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of generated images with captions, to take away from."""
    made = prepare_world(WorldData(train=24, test=6, captions=2, image_size=32), cache_folder())
    return Path(shutil.copytree(made, tmp_path / "pictures"))


@pytest.mark.parametrize("augmentation", [{}, {"crop": [0.6, 1.0], "views": 2}], ids=["plain", "augmented"])
def test_images_that_are_decoded_fast_train_from_a_store_bit_for_bit(
    augmentation: dict[str, Any],
    pictures: Path,
    tiny_recipe: Recipes,
    tiny_spec: Callable[..., str],
    calls: Counter[str],
    tmp_path: Path,
) -> None:
    for path in pictures.rglob("*.png"):
        with Image.open(path) as drawn:
            drawn.convert("RGB").resize((200, 200), Image.Resampling.BICUBIC).save(path, "JPEG")
    recipe = tiny_recipe(
        start=tiny_spec("frozen vision"),
        data={"kind": "images", "path": str(pictures)},
        augmentation=augmentation,
        decoding="fast",
    )
    assert both(recipe, tmp_path / "fast", calls)[1] == {"text": STEPS}
    exact = {"decoding": "exact", "store": {"folder": str(tmp_path / "fast" / "store")}}
    assert losses(run({**recipe, **exact}, out=tmp_path / "exact").folder) != losses(tmp_path / "fast" / "stored")


def test_with_a_frozen_vision_tower_the_image_files_need_not_be_there(
    pictures: Path, tiny_recipe: Recipes, tiny_spec: Callable[..., str], tmp_path: Path
) -> None:
    recipe = tiny_recipe(
        start=tiny_spec("frozen vision"),
        data={"kind": "images", "path": str(pictures)},
        store={"folder": str(tmp_path / "store")},
    )
    before = run(recipe, out=tmp_path / "before")
    images = [path for path in pictures.rglob("*") if path.suffix in (".png", ".jpg")]
    assert images
    for path in images:
        path.unlink()
    after = run(recipe, out=tmp_path / "after")
    first, second = (load_file(done.model_folder / "model.safetensors") for done in (before, after))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert before.scores["scores"] == after.scores["scores"]
    with pytest.raises(SampleError, match="cannot be read"):  # of another tower nothing is stored
        run({**recipe, "seed": 1}, out=tmp_path / "other")


def test_without_a_stored_vision_tower_a_missing_image_is_told_before_anything_is_written(
    pictures: Path, tiny_recipe: Recipes, tiny_spec: Callable[..., str], tmp_path: Path
) -> None:
    next(path for path in pictures.rglob("*") if path.suffix in (".png", ".jpg")).unlink()
    data = {"kind": "images", "path": str(pictures)}
    with pytest.raises(SampleError, match=r"captions\.jsonl, row .* cannot be read"):
        run(tiny_recipe(start=tiny_spec("frozen text"), data=data, store=True), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_store_is_not_built_for_a_recipe_that_may_have_none(
    tiny_recipe: Recipes, tiny_spec: Callable[..., str]
) -> None:
    recipe = validate_recipe(tiny_recipe(start=tiny_spec("frozen vision"), on_bad_sample="skip"))
    with pytest.raises(SpecError, match="set on_bad_sample to 'error', or leave 'store' out"):
        wishes_of_recipe(recipe, default_registry(), Silent())


def test_a_changed_image_is_a_miss(
    pictures: Path, tiny_recipe: Recipes, tiny_spec: Callable[..., str], tmp_path: Path
) -> None:
    from PIL import Image

    recipe = tiny_recipe(
        start=tiny_spec("frozen vision"),
        data={"kind": "images", "path": str(pictures)},
        store={"folder": str(tmp_path / "store")},
        evaluation={"untrained": False},
    )

    def stored() -> int:
        (folder,) = [place for place in (tmp_path / "store").iterdir() if place.name != "contents"]
        return len(FeatureStore.open(folder))

    run(recipe, out=tmp_path / "before")
    count = stored()
    path = next(path for path in pictures.rglob("*") if path.suffix in (".png", ".jpg"))
    Image.new("RGB", (32, 32), "purple").save(path)
    run(recipe, out=tmp_path / "after")
    assert stored() == count + 1


def test_damage_stops_a_run_and_names_the_file(
    tiny_recipe: Recipes, tiny_spec: Callable[..., str], tmp_path: Path
) -> None:
    recipe = tiny_recipe(
        start=tiny_spec("frozen vision"), store={"folder": str(tmp_path / "store")}, evaluation={"untrained": False}
    )
    run(recipe, out=tmp_path / "before")
    (shard,) = (tmp_path / "store").rglob("*.safetensors")
    with shard.open("r+b") as file:
        file.seek(6000)
        file.write(b"\xff\xff\xff\xff")
    with pytest.raises(FeatureStoreError, match=rf"{shard.name} is damaged: .* Delete {shard.name}"):
        run(recipe, out=tmp_path / "after")


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "views without end": ({"augmentation": {"flip": True}}, "frozen vision", r"augmentation\.views says: set it"),
    "views for a blind twin": (
        {"augmentation": {"flip": True, "views": 2}, "evaluation": {"blind": "text"}},
        "frozen vision",
        "evaluation.blind pairs views and images that no store holds",
    ),
    "hidden patches": (
        {"tasks": {"mim": {"options": {"patch_size": 8}}}, "evaluation": {"untrained": False}},
        "frozen vision[:1]",
        r"'mim' hides patches of the images, other ones in each step, so a store of what 'vision\[:1\]' gives",
    ),
    "texts that are changed": ({}, "frozen both, as-published(no_padding_mask=true)", "as-published"),
}


@pytest.mark.parametrize(("changes", "rules", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_no_store_can_be_used_for_is_refused_with_the_reason(
    changes: dict[str, Any],
    rules: str,
    message: str,
    tiny_recipe: Recipes,
    tiny_spec: Callable[..., str],
    tmp_path: Path,
) -> None:
    with pytest.raises(SpecError, match=message):
        run(tiny_recipe(start=tiny_spec(rules), store=True, **changes), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_store_that_another_run_built_is_charged_like_ones_own(
    tiny_recipe: Recipes, tiny_spec: Callable[..., str], tmp_path: Path
) -> None:
    recipe = tiny_recipe(
        start=tiny_spec("frozen vision"),
        tasks={"itm": {}},
        evaluation={"untrained": False},
        store={"folder": str(tmp_path / "store")},
    )
    builds, reads, plain = (tmp_path / name for name in ("builds", "reads", "plain"))
    for folder, changes in ((builds, {}), (reads, {"optimiser": {"lr": 0.001}}), (plain, {"store": False})):
        run({**recipe, **changes}, out=folder)
    own, other, without = (read_ledger(folder) for folder in (builds, reads, plain))
    assert own["store"]["flops"] == other["store"]["flops"] > 0
    assert own["store"]["seconds"] == other["store"]["seconds"] > 0
    for facts in (own, other):
        compared = facts["compared"]
        assert compared["as run, store built"] == compared["as run"] + facts["store"]["flops"]
    assert without["store"] == {"flops": 0, "seconds": 0.0}
    assert without["compared"]["as run, store built"] == without["compared"]["as run"]
