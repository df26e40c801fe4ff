from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from renaissance.assemble import Assembly, assemble
from renaissance.container import load, save
from renaissance.errors import ModelFileError
from renaissance.manifest import SELFTEST, write_manifest
from renaissance.registry import Registry
from renaissance.resolve import resolve
from renaissance.selftest import check_selftest, unproven, write_selftest
from renaissance.selftest.probe import TEXTS, outputs, pictures
from renaissance.toolkit.text import FACTS_FILE, TOKENIZER_FILE, WordTokenizer, read_tokenizer

REGISTRY = Registry()
SIZES = "layers=2, width=32, heads=2, mlp_width=32"
SPEC = f"tiny-vit({SIZES}) + tiny-bert({SIZES}), random both, lxmert(layers=1, width=32, heads=2)"
LABELS = ["no", "yes"]

Change = Callable[[Path], object]
State = dict[str, Tensor]


def assembled(tasks: Mapping[str, Mapping[str, Any]], spec: str = SPEC) -> Assembly:
    """A model whose every parameter was drawn: zeros and ones of an initialisation would hide what is swapped."""
    model = assemble(resolve(spec, tasks, registry=REGISTRY))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save(assembled({"mlm": {}, "itm": {}, "itc": {"width": 16}, "visual-entailment": {}}), folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of a saved model, to be changed."""
    shutil.copytree(original, tmp_path / "model")
    return tmp_path / "model"


# --- ways to change a model, each with a manifest that agrees -------------------------------------------------------


def pixels(**values: Any) -> Change:
    """Other preprocessing of images."""

    def change(folder: Path) -> None:
        path = folder / "vision" / "preprocessor.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def words(alter: Callable[[dict[str, Any]], object]) -> Change:
    """Another tokenizer, under the digest that is its own."""

    def change(folder: Path) -> None:
        path = folder / "text" / TOKENIZER_FILE
        data = json.loads(path.read_text())
        alter(data)
        path.write_text(json.dumps(data))
        facts = json.loads((folder / "text" / FACTS_FILE).read_text())
        named = {name: value for name, value in facts.items() if name != "sha256"}
        tokens = WordTokenizer.load(folder.parent / "intact" / "text").facts
        own = WordTokenizer(read_tokenizer(path), tokens).describe()["sha256"]
        (folder / "text" / FACTS_FILE).write_text(json.dumps({"sha256": own, **named}))

    return change


def facts(**values: Any) -> Change:
    """Other facts of the same tokenizer."""

    def change(folder: Path) -> None:
        path = folder / "text" / FACTS_FILE
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def weights(alter: Callable[[State], object]) -> Change:
    """Other tensors."""

    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        with safe_open(path, framework="pt") as opened:
            note = opened.metadata()
        state = {name: tensor.clone() for name, tensor in load_file(path).items()}
        alter(state)
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path, metadata=note)

    return change


def config(*keys: str, value: object) -> Change:
    """Another value in config.json."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        data = json.loads(path.read_text())
        part = data
        for key in keys[:-1]:
            part = part[key]
        assert part.get(keys[-1]) != value
        part[keys[-1]] = value
        path.write_text(json.dumps(data))

    return change


def named(state: State, *parts: str) -> str:
    """The first tensor whose name has all of these parts."""
    return next(name for name in sorted(state) if all(part in name for part in parts))


def swap(*parts: str, by: tuple[str, str]) -> Change:
    """Exchange tensors that differ by one part of their names."""

    def alter(state: State) -> None:
        first = [name for name in state if all(part in name for part in parts) and by[0] in name]
        assert first
        for name in first:
            other = name.replace(by[0], by[1])
            state[name], state[other] = state[other], state[name]

    return weights(alter)


def tensor(*parts: str, to: Callable[[Tensor], Tensor]) -> Change:
    """Change one tensor."""

    def alter(state: State) -> None:
        name = named(state, *parts)
        state[name] = to(state[name])

    return weights(alter)


def put(place: tuple[int, ...], value: float) -> Callable[[Tensor], Tensor]:
    def to(found: Tensor) -> Tensor:
        found[place] = value
        return found

    return to


def flip(bit: int) -> Callable[[Tensor], Tensor]:
    """Flip one bit of the first value."""

    def to(found: Tensor) -> Tensor:
        found.view(-1).view(torch.int32)[:1] ^= torch.tensor(1 << bit if bit < 31 else -(1 << 31), dtype=torch.int32)
        return found

    return to


def drop(*parts: str) -> Change:
    def alter(state: State) -> None:
        for name in [name for name in state if all(part in name for part in parts)]:
            del state[name]

    return weights(alter)


def exchange_words(data: dict[str, Any]) -> None:
    vocabulary = data["model"]["vocab"]
    vocabulary["red"], vocabulary["table"] = vocabulary["table"], vocabulary["red"]


def reverse_words(data: dict[str, Any]) -> None:
    vocabulary = data["model"]["vocab"]
    plain = [word for word in vocabulary if not word.startswith("[")]
    ids = [vocabulary[word] for word in plain]
    vocabulary.update(zip(plain, reversed(ids), strict=True))


def one_more_word(data: dict[str, Any]) -> None:
    vocabulary = data["model"]["vocab"]
    vocabulary["horse"] = max(vocabulary.values()) + 1
    vocabulary["zzyzx"] = max(vocabulary.values()) + 1


MUTANTS: dict[str, Change] = {
    # how pictures become pixels
    "mean and std swapped": pixels(mean=[0.229, 0.224, 0.225], std=[0.485, 0.456, 0.406]),
    "BGR in mean": pixels(mean=[0.406, 0.456, 0.485], std=[0.225, 0.224, 0.229]),
    "no normalisation": pixels(mean=[0.0, 0.0, 0.0], std=[1.0, 1.0, 1.0]),
    "a std that is a little larger": pixels(std=[0.51, 0.5, 0.5]),
    "bilinear": pixels(interpolation="bilinear"),
    "nearest": pixels(interpolation="nearest"),
    "lanczos": pixels(interpolation="lanczos"),
    "crop": pixels(crop=0.875),
    "squashed": pixels(resize="squash"),
    "smaller images": pixels(image_size=[24, 24]),
    # how texts become ids
    "two words exchanged": words(exchange_words),
    "vocabulary permuted": words(reverse_words),
    "vocabulary longer": words(one_more_word),
    "no lower case": words(lambda data: data.update(normalizer=None)),
    "no special tokens": words(lambda data: data.update(post_processor=None)),
    "another padding id": facts(pad_id=5),
    "another mask id": facts(mask_id=5),
    "fewer special ids": facts(special_ids=[0]),
    "shorter texts": facts(max_tokens=16),
    "vocabulary told longer": facts(vocabulary=5000),
    # values
    "NaN in vision": tensor("vision", "weight", to=put((0,), float("nan"))),
    "infinity in text": tensor("text", "blocks.1", "query.weight", to=put((0, 0), float("inf"))),
    "NaN in the padding's word": tensor("text", "word_embeddings", to=put((0, 0), float("nan"))),
    "an exponent's bit in vision": tensor("vision", "blocks.0", "weight", to=flip(30)),
    "an exponent's bit in fusion": tensor("fusion", "weight", to=flip(30)),
    "an exponent's bit in a head": tensor("tasks.itm", "weight", to=flip(30)),
    "BGR in the first layer": tensor("vision", "projection.weight", to=lambda found: found.flip(1)),
    "positions of patches reversed": tensor("vision", "position_embeddings", to=lambda found: found.flip(1)),
    "positions of words moved": tensor("text", "position_embeddings", to=lambda found: found.roll(1, 0)),
    "positions cut and filled": tensor("text", "position_embeddings", to=lambda found: found * 0),
    "no class token": tensor("vision", "cls_token", to=lambda found: found * 0),
    "norms forgotten": tensor("text", "blocks.0", "LayerNorm.weight", to=torch.ones_like),
    "a bias forgotten": tensor("text", "blocks.1", "intermediate", "bias", to=lambda found: found * 0),
    "a weight transposed": tensor("text", "blocks.0", "query.weight", to=lambda found: found.T),
    "a weight negated": tensor("fusion", "weight", to=lambda found: -found),
    "matching negated": tensor("tasks.itm", "head.weight", to=lambda found: -found),
    "words of a head permuted": tensor("tasks.mlm", "decoder.bias", to=lambda found: found.roll(1)),
    "labels of a head exchanged": tensor("tasks.visual-entailment", "outer.weight", to=lambda found: found.flip(0)),
    # parts in the wrong place
    "two blocks of the text tower exchanged": swap("encoder.text", by=("blocks.0.", "blocks.1.")),
    "two blocks of the vision tower exchanged": swap("encoder.vision", by=("blocks.0.", "blocks.1.")),
    "queries and keys exchanged": swap(
        "text.blocks.0", by=("attention.self.query.weight", "attention.self.value.weight")
    ),
    "projections of the shared space exchanged": swap("tasks.itc", by=("vision", "text")),
    # tensors
    "a block missing": drop("encoder.text.blocks.1."),
    "a head missing": drop("tasks.itc"),
    "a tensor too many": weights(lambda state: state.update({"encoder.extra": torch.zeros(2)})),
    "a tensor in half precision": tensor("fusion", "weight", to=Tensor.half),
    "all in half precision": weights(lambda state: state.update({n: t.half() for n, t in state.items()})),
    "a shorter table of positions": tensor("text", "position_embeddings", to=lambda found: found[:-1]),
    # what is built
    "another activation": config("resolved", "text", "config", "transformers", "hidden_act", value="relu"),
    "more attention heads": config("resolved", "text", "config", "transformers", "num_attention_heads", value=4),
    "another epsilon": config("resolved", "vision", "config", "transformers", "layer_norm_eps", value=0.1),
    "another pooling": config("resolved", "text", "config", "pooling", value="last"),
    "more heads in the fusion": config("spec", "fusion", "options", "heads", value=4),
    "float16 noted": config("dtype", value="float16"),
    "a task forgotten": lambda folder: _forget_task(folder),
}


def _forget_task(folder: Path) -> None:
    path = folder / "config.json"
    data = json.loads(path.read_text())
    del data["tasks"]["itm"]
    path.write_text(json.dumps(data))


@pytest.mark.parametrize("name", MUTANTS)
def test_a_changed_model_is_refused_though_its_manifest_agrees(name: str, folder: Path, original: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder.parent / "intact").symlink_to(original)
    MUTANTS[name](folder)
    write_manifest(folder)
    changed = [path for path, data in before.items() if path.name != "manifest.json" and path.read_bytes() != data]
    assert changed
    with pytest.raises(ModelFileError):
        load(folder, registry=REGISTRY)


def test_there_are_forty_ways_to_change_a_model() -> None:
    assert len(MUTANTS) >= 40


# --- what passes ------------------------------------------------------------------------------------------------------


def rewritten(folder: Path, change: Callable[[State], object]) -> None:
    """Change the tensors of the self-test itself."""
    path = folder / SELFTEST
    with safe_open(path, framework="pt") as opened:
        note = opened.metadata()
    state = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(state)
    save_file(state, path, metadata=note)
    write_manifest(folder)


def test_a_model_passes_its_self_test_and_has_a_small_one(folder: Path) -> None:
    load(folder, registry=REGISTRY)
    assert (folder / SELFTEST).stat().st_size < 200_000


def test_models_of_before_have_no_self_test_and_load(folder: Path) -> None:
    (folder / SELFTEST).unlink()
    write_manifest(folder)
    load(folder, registry=REGISTRY)


def test_what_another_machine_rounds_or_resizes_differently_passes(folder: Path) -> None:
    def change(state: State) -> None:
        for found in state.values():
            if found.is_floating_point():
                found.mul_(1 + 2e-5)
        state["given/pixels"] ^= 1

    rewritten(folder, change)
    load(folder, registry=REGISTRY)


def test_more_than_rounding_is_named_with_its_share_and_the_versions(folder: Path) -> None:
    rewritten(folder, lambda state: state["joint/pooled"].mul_(1.01))
    with pytest.raises(ModelFileError, match=r"'joint/pooled' differs by 9\.9e-03 of its size.*torch 2.*verify=False"):
        load(folder, registry=REGISTRY)


def test_without_verification_a_model_loads_that_fits(folder: Path) -> None:
    MUTANTS["matching negated"](folder)
    load(folder, registry=REGISTRY, verify=False)
    MUTANTS["a block missing"](folder)
    with pytest.raises(ModelFileError, match="is missing"):
        load(folder, registry=REGISTRY, verify=False)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", bytes(16), b"\xff" * 4096], ids=["empty", "zip", "zeros", "ones"])
def test_a_damaged_self_test_is_a_typed_error(folder: Path, data: bytes) -> None:
    (folder / SELFTEST).write_bytes(data)
    write_manifest(folder)
    with pytest.raises(ModelFileError, match=SELFTEST):
        load(folder, registry=REGISTRY)


def test_a_self_test_without_its_notes_or_pictures_is_a_typed_error(folder: Path) -> None:
    for tensors, note in (({"x": torch.zeros(1)}, None), (load_file(folder / SELFTEST), {"selftest": "{}"})):
        save_file(tensors, folder / SELFTEST, metadata=note)
        write_manifest(folder)
        with pytest.raises(ModelFileError, match="cannot be read"):
            load(folder, registry=REGISTRY)


@pytest.mark.parametrize("tolerance", [0.5, float("nan")])
def test_a_self_test_that_tolerates_anything_is_refused(folder: Path, tolerance: float) -> None:
    with safe_open(folder / SELFTEST, framework="pt") as opened:
        notes = json.loads(opened.metadata()["selftest"])
    notes["tolerance"] = {"float32": tolerance}
    save_file(load_file(folder / SELFTEST), folder / SELFTEST, metadata={"selftest": json.dumps(notes)})
    write_manifest(folder)
    with pytest.raises(ModelFileError, match="cannot be read"):
        load(folder, registry=REGISTRY)


def test_a_model_that_would_come_back_as_another_is_not_saved(tmp_path: Path) -> None:
    model = assembled({"itm": {}})
    text: Any = model.encoder.text
    text.pooling = "last"  # and its config, which is saved, still says what it was
    with pytest.raises(ModelFileError, match="would give something else when it is loaded"):
        save(model, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_the_same_model_has_the_same_self_test(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save(assembled({"itm": {}}), tmp_path / name)
    assert (tmp_path / "one" / SELFTEST).read_bytes() == (tmp_path / "two" / SELFTEST).read_bytes()


def test_a_model_runs_its_self_test_in_whatever_mode_and_keeps_that(tmp_path: Path) -> None:
    model = assembled({"itm": {}}).train()
    modes = [part.training for part in model.modules()]
    before = torch.get_rng_state()
    save(model, tmp_path / "model")
    assert [part.training for part in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), before)


# --- what cannot be asked ---------------------------------------------------------------------------------------------


def test_texts_that_a_model_cannot_take_are_left_out_and_that_is_told(tmp_path: Path) -> None:
    model = assembled({"itm": {}}).eval()
    longest = len(model.encoder.text.processor(list(TEXTS)).mask[0])

    def refusing(part: Any, inputs: Any, **_: Any) -> None:
        if inputs[0].mask.shape[1] == longest:
            raise RuntimeError("too long")

    write_selftest(model, tmp_path)
    assert unproven(tmp_path) == {}
    model.encoder.text.register_forward_pre_hook(refusing)
    write_selftest(model, tmp_path)
    assert unproven(tmp_path) == {"long texts": "RuntimeError: too long"}
    check_selftest(model, tmp_path)


def test_a_model_that_cannot_be_run_at_all_is_not_saved(tmp_path: Path) -> None:
    model = assembled({"itm": {}}).eval()

    def refusing(*_: Any) -> None:
        raise KeyError("no such thing")

    model.encoder.text.register_forward_pre_hook(refusing)
    with pytest.raises(ModelFileError, match=r"cannot be run on two pictures and a text \(KeyError: .*no such thing"):
        write_selftest(model, tmp_path)


def test_a_head_that_cannot_be_asked_is_left_out_by_name_and_fails_where_it_could_be(tmp_path: Path) -> None:
    model = assembled({"itm": {}, "visual-entailment": {}}).eval()
    head: Any = model.tasks["visual-entailment"]
    write_selftest(model, tmp_path)

    def refusing(*_: Any) -> None:
        raise TypeError("no item")

    head.decide = refusing
    with pytest.raises(ModelFileError, match=r"'task/visual-entailment' cannot be run \(TypeError: no item\)"):
        check_selftest(model, tmp_path)
    write_selftest(model, tmp_path)
    assert unproven(tmp_path) == {"task/visual-entailment": "TypeError: no item"}
    check_selftest(model, tmp_path)


def test_a_model_that_can_no_longer_be_run_is_a_typed_error(tmp_path: Path) -> None:
    model = assembled({"itm": {}}).eval()
    write_selftest(model, tmp_path)

    def refusing(*_: Any) -> None:
        raise AttributeError("gone")

    model.encoder.text.register_forward_pre_hook(refusing)
    with pytest.raises(ModelFileError, match=r"it cannot be run \(AttributeError: gone\)"):
        check_selftest(model, tmp_path)


# --- what is covered --------------------------------------------------------------------------------------------------

ITEM_TASKS: dict[str, Mapping[str, Any]] = {
    "mlm": {},
    "itm": {},
    "itc": {},
    "visual-entailment": {},
    "nlvr2": {},
    "referring": {},
    "regression": {"field": "age"},
    "classification": {"labels": LABELS},
    "pair": {"labels": LABELS},
    "image-classification": {"labels": LABELS},
    "text-classification": {"labels": LABELS},
}


@pytest.mark.parametrize(
    "spec", [SPEC, f"tiny-bert({SIZES}), one-tower, random encoder"], ids=["two-tower", "one-tower"]
)
def test_each_head_that_can_be_asked_is_in_the_self_test(spec: str) -> None:
    model = assembled(ITEM_TASKS, spec).eval()
    found = outputs(model, pictures(), TEXTS, {})
    asked = {name.split("/")[1] for name in found if name.startswith("task/")}
    assert asked == set(ITEM_TASKS)
    assert {"vision/tokens", "text/tokens", "joint/pooled", "vision/vector", "text/vector"} <= set(found)


def test_a_model_without_a_fusion_has_its_vectors(tmp_path: Path) -> None:
    model = assembled({"itc": {}}, f"tiny-vit({SIZES}) + tiny-bert({SIZES}), random both, dual(width=16)").eval()
    found = outputs(model, pictures(), TEXTS, {})
    assert not any(name.startswith("joint/") for name in found)
    assert {"task/itc/vision", "task/itc/text"} <= set(found)
