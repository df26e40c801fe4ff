from __future__ import annotations

import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from PIL import Image

from renaissance.errors import (
    CapabilityError,
    HubError,
    ModelFileError,
    PluginError,
    RenaissanceError,
    SampleError,
    SpecError,
)
from renaissance.manifest import write_manifest
from renaissance.pretrained import Model, build, from_pretrained
from renaissance.registry import Plugin, Registry
from tests.hub_server import HubServer, use

# huggingface_hub gives its HTTP client large files in a way that the client wants written otherwise
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REGISTRY = Registry()
SPEC = (
    "tiny-vit(width=32, layers=1, heads=2, mlp_width=32) + tiny-bert(width=32, layers=1, heads=2, mlp_width=32), "
    "random both, lxmert(layers=1, width=32, heads=2)"
)
PICTURES = [Image.linear_gradient("L").convert("RGB").rotate(angle) for angle in (0, 90, 180)]
CAPTIONS = ["a red cup on a table", "two dogs", "rain"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> Model:
    return build(SPEC, tasks=("itm", "itc"), registry=REGISTRY)


@pytest.fixture(scope="module")
def bare() -> Model:
    return build(SPEC, tasks="mlm", registry=REGISTRY)


@pytest.fixture
def folder(model: Model, tmp_path: Path) -> Path:
    model.save(tmp_path / "run" / "model")
    return tmp_path / "run" / "model"


# --- building ---------------------------------------------------------------------------------------------------------


def test_a_seed_gives_the_same_model_and_another_seed_another() -> None:
    one, same, other = (build(SPEC, seed=seed, registry=REGISTRY).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_a_model_tells_its_canonical_spec(model: Model) -> None:
    assert build(model.spec, registry=REGISTRY).spec == model.spec


# --- embed and match --------------------------------------------------------------------------------------------------


def test_embeddings_are_unit_vectors_of_one_width(model: Model) -> None:
    images, texts = model.embed(PICTURES, CAPTIONS)
    assert images is not None
    assert texts is not None
    assert images.shape == texts.shape
    assert images.dtype == texts.dtype == torch.float32
    ones = torch.ones(len(PICTURES))
    torch.testing.assert_close(images.norm(dim=1), ones)
    torch.testing.assert_close(texts.norm(dim=1), ones)


def test_one_modality_alone_can_be_embedded(model: Model) -> None:
    assert model.embed(images=PICTURES).texts is None
    assert model.embed(texts=CAPTIONS).images is None


def test_a_picture_a_path_and_bytes_are_the_same_image(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    PICTURES[1].save(path)
    images = model.embed(images=[PICTURES[1], path, str(path), path.read_bytes()]).images
    assert images is not None
    torch.testing.assert_close(images, images[:1].expand_as(images))
    single = model.embed(images=path).images
    assert single is not None
    torch.testing.assert_close(single, images[:1])


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_batches_change_nothing(model: Model, batch_size: int) -> None:
    whole, parts = model.embed(PICTURES, CAPTIONS), model.embed(PICTURES, CAPTIONS, batch_size=batch_size)
    torch.testing.assert_close(parts.images, whole.images)
    torch.testing.assert_close(parts.texts, whole.texts)
    matched = model.match(PICTURES, CAPTIONS, batch_size=batch_size)
    torch.testing.assert_close(matched, model.match(PICTURES, CAPTIONS))


def test_match_gives_one_probability_a_pair(model: Model) -> None:
    chances = model.match(PICTURES, CAPTIONS)
    assert chances.shape == (3,)
    assert chances.dtype == torch.float32
    assert ((chances > 0) & (chances < 1)).all()
    torch.testing.assert_close(model.match(PICTURES[2], CAPTIONS[2]), chances[2:])


def test_what_was_not_trained_for_names_the_task_to_add(bare: Model) -> None:
    with pytest.raises(CapabilityError, match=r"embed needs a head trained for 'itc'.*has the tasks: mlm"):
        bare.embed(texts="a cup")
    with pytest.raises(CapabilityError, match=r"match needs a head trained for 'itm'"):
        bare.match(PICTURES, CAPTIONS)


def test_each_part_keeps_its_mode_and_results_can_be_trained_on(model: Model) -> None:
    model.train()
    model.tasks["itm"].eval()
    before = [module.training for module in model.modules()]
    texts = model.embed(texts=CAPTIONS).texts
    assert [module.training for module in model.modules()] == before
    assert texts is not None
    (texts * torch.ones(1, requires_grad=True)).sum().backward()  # type: ignore[no-untyped-call]  # torch's own


def test_dropout_is_off_whatever_the_mode(model: Model) -> None:
    model.train()
    first, second = model.embed(texts=CAPTIONS).texts, model.embed(texts=CAPTIONS).texts
    assert first is not None
    assert second is not None
    assert torch.equal(first, second)


@pytest.mark.parametrize("text", ["", "  \n", None, 5])
def test_a_text_that_is_none_is_named(model: Model, text: object) -> None:
    with pytest.raises(SampleError, match=r"texts\[1\]"):
        model.embed(texts=["fine", text])  # type: ignore[list-item]  # what a user may do


def test_an_image_that_cannot_be_used_is_named(model: Model, tmp_path: Path) -> None:
    for picture in (tmp_path / "none.png", b"no image", 5):
        with pytest.raises(SampleError, match=r"images\[1\]"):
            model.embed(images=[PICTURES[0], picture])  # type: ignore[list-item]  # what a user may do


def test_unequal_numbers_and_empty_lists_are_refused(model: Model) -> None:
    with pytest.raises(SpecError, match="3 images and 2 texts"):
        model.match(PICTURES, CAPTIONS[:2])
    with pytest.raises(SampleError, match="empty"):
        model.embed(texts=[])
    with pytest.raises(SpecError, match="batch_size"):
        model.embed(texts=CAPTIONS, batch_size=0)


# --- loading ----------------------------------------------------------------------------------------------------------


def test_a_folder_and_its_runs_folder_give_the_model_bit_for_bit(model: Model, folder: Path) -> None:
    model.eval()
    for place in (folder, str(folder), folder.parent):
        loaded = from_pretrained(place, registry=REGISTRY)
        assert loaded.spec == model.spec
        assert list(loaded.tasks) == list(model.tasks)
        for one, two in zip(loaded.embed(PICTURES, CAPTIONS), model.embed(PICTURES, CAPTIONS), strict=True):
            assert one is not None
            assert two is not None
            assert torch.equal(one, two)
        assert torch.equal(loaded.match(PICTURES, CAPTIONS), model.match(PICTURES, CAPTIONS))


def test_what_is_no_model_is_said_so(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ModelFileError, match="There is no folder"):
        from_pretrained(tmp_path / "none")
    with pytest.raises(ModelFileError, match="holds no saved model"):
        from_pretrained(tmp_path)
    with pytest.raises(SpecError, match="has no revisions"):
        from_pretrained(folder, revision="main")


# --- towers for use elsewhere -----------------------------------------------------------------------------------------


@torch.no_grad()
def test_towers_are_taken_out_as_models_of_their_library(model: Model) -> None:
    vision, text = model.vision.to_transformers(), model.text.to_transformers()
    pixels, words = model.vision.processor(PICTURES), model.text.processor(CAPTIONS)
    tokens = vision(pixel_values=model.vision.processor.normalise(pixels.pixels)).last_hidden_state
    torch.testing.assert_close(tokens, model.encoder.vision.eval()(pixels).tokens, rtol=0, atol=1e-6)
    hidden = text(input_ids=words.token_ids, attention_mask=words.mask.long()).last_hidden_state
    expected = model.encoder.text.eval()(words).tokens
    torch.testing.assert_close(hidden[words.mask], expected[words.mask], rtol=0, atol=1e-6)
    assert not vision.training
    assert (model.vision.width, model.text.width) == (32, 32)


@pytest.mark.parametrize(
    ("spec", "tower", "form", "told"),
    [
        (SPEC, "text", "timm", r"The text tower is JointText, which timm has no form of.*to_transformers\(\)"),
        ("timm:test_vit + tiny-bert, random both", "vision", "transformers",
         r"LayeredTimmVision, which transformers has no form of.*to_timm\(\)"),
        ("tiny-bert, one-tower, random encoder", "vision", "transformers", "OtherEmbeddings, which transformers"),
        (f"{SPEC}, lora(rank=2) text", "text", "transformers", r"merge_adapters\(\) first"),
    ],
)  # fmt: skip
def test_a_tower_without_such_a_form_says_what_it_is(spec: str, tower: str, form: str, told: str) -> None:
    held = getattr(build(spec, registry=REGISTRY), tower)
    with pytest.raises(CapabilityError, match=told):
        getattr(held, f"to_{form}")()


# --- the Hub ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer(tokens={"secret": "org"}) as server:
        use(server, monkeypatch)
        yield server


def test_a_published_model_comes_back_bit_for_bit(hub: HubServer, model: Model, tmp_path: Path) -> None:
    first = model.push_to_hub("org/name", token="secret", commit_message="First")
    second = model.push_to_hub("org/name", token="secret")
    assert (first.changed, second.changed) == (True, False)
    loaded = from_pretrained("org/name", revision=first.commit, cache_dir=tmp_path, registry=REGISTRY)
    assert torch.equal(loaded.match(PICTURES, CAPTIONS), model.match(PICTURES, CAPTIONS))


def newer_format(folder: Path) -> None:
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"format": 1', '"format": 2'))
    write_manifest(folder)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps({"weight": [1.0]}))
    write_manifest(folder)


def another_manifest(folder: Path) -> None:
    with (folder / "config.json").open("a") as file:
        file.write("\n")


def another_library(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "bert"}')


def another_result(folder: Path) -> None:
    path = folder / "vision" / "preprocessor.json"
    path.write_text(path.read_text().replace("bicubic", "nearest"))
    write_manifest(folder)


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        (newer_format, ModelFileError, "pip install --upgrade renaissance-vl"),
        (pickled, ModelFileError, "truncated, or no safetensors file"),
        (another_manifest, HubError, "arrived damaged twice"),
        (another_library, HubError, "holds no renaissance model"),
        (another_result, ModelFileError, "failed its self-test"),
    ],
)
def test_what_the_hub_has_is_loaded_whole_and_proven_or_not_at_all(
    hub: HubServer,
    folder: Path,
    tmp_path: Path,
    change: Callable[[Path], None],
    error: type[RenaissanceError],
    told: str,
) -> None:
    change(folder)
    api = HfApi(endpoint=hub.endpoint, token="secret")
    api.create_repo("org/name")
    api.upload_folder(folder_path=folder, repo_id="org/name")  # as someone would without renaissance
    with pytest.raises(error, match=told) as raised:
        from_pretrained("org/name", cache_dir=tmp_path / "cache", registry=REGISTRY)
    assert "\n" not in str(raised.value)


def publish_with_plugin(hub: HubServer, folder: Path, name: str = "xyz:vit") -> None:
    """Publish a model whose vision tower comes from a third party."""
    from renaissance.hub import upload

    config = folder / "config.json"
    config.write_text(config.read_text().replace('"tiny-vit"', f'"{name}"'))
    write_manifest(folder)
    upload(folder, "org/name", token="secret")


def registry_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry with a plugin "xyz" 1.2 that offers the built-in ViT as "vit", and leaves a mark when imported."""
    (tmp_path / "renaissance_plugin_xyz.py").write_text(
        "from dataclasses import replace\nfrom pathlib import Path\n"
        "from renaissance.api import hookimpl\nfrom renaissance.builtin.transformers_entries import BACKBONES\n"
        "Path(__file__).with_name('imported').touch()\n"
        "@hookimpl\ndef register_backbones():\n"
        "    return [replace(entry, name='vit') for entry in BACKBONES if entry.name == 'tiny-vit']\n"
    )
    sys.modules.pop("renaissance_plugin_xyz", None)  # that of another test
    monkeypatch.syspath_prepend(str(tmp_path))
    return Registry([Plugin("xyz", "renaissance_plugin_xyz", "renaissance-plugin-xyz", "1.2")])


@pytest.mark.parametrize(
    ("trust", "told"), [((), r"pass trust=\['xyz'\]"), (("abc",), r"trust=\['xyz'\]"), (("xyz==1.1",), "version 1.2")]
)
def test_a_plugin_of_a_hub_model_runs_only_if_trusted(
    hub: HubServer,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trust: tuple[str, ...],
    told: str,
) -> None:
    publish_with_plugin(hub, folder)
    registry = registry_with(tmp_path, monkeypatch)
    with pytest.raises(PluginError, match=told):
        from_pretrained("org/name", trust=trust, cache_dir=tmp_path / "cache", registry=registry)
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("trust", [("xyz",), ("xyz==1.2",), "xyz"])
def test_a_trusted_plugin_is_used(
    hub: HubServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trust: tuple[str, ...]
) -> None:
    publish_with_plugin(hub, folder)
    registry = registry_with(tmp_path, monkeypatch)
    loaded = from_pretrained("org/name", trust=trust, cache_dir=tmp_path / "cache", registry=registry)
    assert loaded.spec.vision.name == "xyz:vit"


def test_a_bare_unknown_name_of_a_hub_model_imports_no_plugin(
    hub: HubServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_with_plugin(hub, folder, name="vit")
    registry = registry_with(tmp_path, monkeypatch)
    with pytest.raises(ModelFileError, match="'vit'"):
        from_pretrained("org/name", cache_dir=tmp_path / "cache", registry=registry)
    assert not (tmp_path / "imported").exists()


def test_a_missing_plugin_is_named_even_if_trusted(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    publish_with_plugin(hub, folder)
    with pytest.raises(PluginError, match="pip install renaissance-plugin-xyz"):
        from_pretrained("org/name", trust=["xyz"], cache_dir=tmp_path / "cache", registry=REGISTRY)


def with_two_plugins(folder: Path) -> None:
    """Let both towers of a saved model come from plugins."""
    config = folder / "config.json"
    changed = config.read_text().replace('"tiny-vit"', '"xyz:vit"').replace('"tiny-bert"', '"abc:bert"')
    config.write_text(changed)
    write_manifest(folder)


def test_all_plugins_that_a_model_needs_are_told_at_once(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    from renaissance.hub import upload

    with_two_plugins(folder)
    with pytest.raises(PluginError, match=r"the plugins 'abc', 'xyz'. Try: pip install \S+-abc \S+-xyz$"):
        from_pretrained(folder, registry=REGISTRY)
    upload(folder, "org/name", token="secret")
    for trust in ((), ("xyz==1.2",)):
        wanted = "xyz==1.2" if trust else "xyz"
        with pytest.raises(PluginError, match="runs code of plugins: abc, xyz") as caught:
            from_pretrained("org/name", trust=trust, cache_dir=tmp_path / "cache", registry=REGISTRY)
        assert f"trust=['abc', '{wanted}'], or --trust abc --trust {wanted} to a command" in str(caught.value)


def test_a_pickle_in_place_of_the_weights_is_told_and_never_opened(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    for verify in (True, False):
        with pytest.raises(ModelFileError, match=r"pytorch_model\.bin alone, .* never opened\. Ask for model\.safe"):
            from_pretrained(folder, verify=verify, registry=REGISTRY)


def test_a_copied_folder_is_a_model_of_its_own(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(folder)
    from_pretrained(tmp_path / "copy", registry=REGISTRY)
