"""Models that are stored in fewer bits, and models that name their frozen towers in place of holding them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi
from PIL import Image
from safetensors import safe_open
from torch import Tensor
from transformers import BertConfig, BertModel

import renaissance
from renaissance.errors import HubError, ModelFileError, NonFiniteError, SpecError
from renaissance.manifest import write_manifest
from renaissance.pretrained import Model, build, from_pretrained
from renaissance.registry import Plugin, Registry
from tests.hub_server import HubServer, use
from tests.importing.described_models import saved

# huggingface_hub gives its HTTP client large files in a way that the client wants written otherwise
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

SIZES = "layers=2, width=32, heads=2, mlp_width=32"
SPEC = f"still:eye({SIZES}) + still:ear({SIZES}), {{rules}}lxmert(layers=1, width=32, heads=2)"
PICTURES = [Image.linear_gradient("L").convert("RGB").rotate(angle) for angle in (0, 90)]
CAPTIONS = ["a red cup on a table", "two dogs"]
# towers whose "pretrained" weights are those of a seed, so that they can be had anywhere
PLUGIN = """
from dataclasses import replace
import torch
from renaissance.api import hookimpl
from renaissance.builtin.transformers_entries import BACKBONES

SEED = 5

def _build(build, options, weights, saved):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return build(options, weights="random" if weights == "pretrained" else weights, saved=saved)

def eye(options, *, weights, saved):
    from renaissance.builtin.transformers_vision import build
    return _build(build, options, weights, saved)

def ear(options, *, weights, saved):
    from renaissance.builtin.transformers_text import build
    return _build(build, options, weights, saved)

def _entry(entry, name):
    described = entry.describe
    return replace(
        entry, name=name, factory=f"renaissance_plugin_still:{name}",
        describe=lambda options: replace(described(options), pretrained=True),
    )

@hookimpl
def register_backbones():
    known = {entry.name: entry for entry in BACKBONES}
    return [_entry(known["tiny-vit"], "eye"), _entry(known["tiny-bert"], "ear")]
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    place = tmp_path_factory.mktemp("site")
    (place / "renaissance_plugin_still.py").write_text(PLUGIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place))
        yield Registry([Plugin("still", "renaissance_plugin_still", "renaissance-plugin-still", "2.1")])


def model_of(rules: str, registry: Registry) -> Model:
    model = build(SPEC.format(rules=rules), tasks=("itm", "mlm"), registry=registry)
    with torch.no_grad():  # what is trained is no longer as it was drawn
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


@pytest.fixture(scope="module")
def frozen(plugin: Registry) -> Model:
    return model_of("frozen both, ", plugin)


def stored(folder: Path) -> dict[str, Tensor]:
    with safe_open(folder / "model.safetensors", framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # no mapping


def config(folder: Path) -> Any:
    return json.loads((folder / "config.json").read_text())


def change_config(folder: Path, tower: str, **changes: Any) -> None:
    data = config(folder)
    data["resolved"][tower]["source"] |= changes
    (folder / "config.json").write_text(json.dumps(data))
    write_manifest(folder)


# --- fewer bits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "kept"), [("float32", torch.float32), ("float16", torch.half), ("bfloat16", torch.bfloat16)]
)
def test_parameters_are_stored_as_asked_and_loaded_in_float32(
    dtype: Any, kept: torch.dtype, frozen: Model, plugin: Registry, tmp_path: Path
) -> None:
    frozen.save(tmp_path / "model", dtype=dtype)
    assert config(tmp_path / "model")["dtype"] == dtype
    assert {tensor.dtype for tensor in stored(tmp_path / "model").values()} == {kept}
    loaded = from_pretrained(tmp_path / "model", registry=plugin)
    own = frozen.state_dict()
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == own[name].dtype == torch.float32
        assert torch.equal(tensor, own[name].to(kept).float())


def test_half_a_model_is_half_as_large_and_says_nearly_the_same(
    frozen: Model, plugin: Registry, tmp_path: Path
) -> None:
    frozen.save(tmp_path / "whole")
    frozen.save(tmp_path / "half", dtype="float16")
    whole, half = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half"))
    assert half < 0.6 * whole
    told = from_pretrained(tmp_path / "half", registry=plugin).match(PICTURES, CAPTIONS)
    torch.testing.assert_close(told, frozen.match(PICTURES, CAPTIONS), rtol=0, atol=1e-2)


def test_buffers_keep_their_type(tmp_path: Path) -> None:
    model = build("timm:test_resnet + tiny-bert, random both", tasks="itm", registry=Registry())
    model.save(tmp_path / "model", dtype="bfloat16")
    parameters = {name for name, _ in model.assembly.named_parameters()}
    statistics = {name: tensor for name, tensor in stored(tmp_path / "model").items() if name not in parameters}
    assert any("running_var" in name for name in statistics)
    assert torch.bfloat16 not in {tensor.dtype for tensor in statistics.values()}
    from_pretrained(tmp_path / "model", registry=Registry())


def test_what_float16_cannot_hold_is_named_and_not_saved(frozen: Model, plugin: Registry, tmp_path: Path) -> None:
    model = model_of("frozen both, ", plugin)
    with torch.no_grad():
        next(model.tasks["itm"].parameters()).view(-1)[0] = 1e6
    with pytest.raises(NonFiniteError, match=r"that float16 cannot hold.*bfloat16 or float32"):
        model.save(tmp_path / "model", dtype="float16")
    assert not (tmp_path / "model").exists()
    model.save(tmp_path / "model", dtype="bfloat16")


def test_an_unknown_type_is_refused(frozen: Model, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="'int8' is no type that weights are stored in"):
        frozen.save(tmp_path / "model", dtype="int8")  # type: ignore[arg-type]  # that is the test


def test_a_model_without_a_note_of_its_type_is_of_float32(frozen: Model, plugin: Registry, tmp_path: Path) -> None:
    frozen.save(tmp_path / "model")
    data = config(tmp_path / "model")
    del data["dtype"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(data))
    write_manifest(tmp_path / "model")
    from_pretrained(tmp_path / "model", registry=plugin)


# --- towers that are named --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "left_out"),
    [("frozen both, ", {"vision", "text"}), ("frozen text, ", {"text"}), ("frozen vision, ", {"vision"})],
)
def test_frozen_towers_are_named_and_come_back_bit_for_bit(
    rules: str, left_out: set[str], plugin: Registry, tmp_path: Path
) -> None:
    model = model_of(rules, plugin)
    model.save(tmp_path / "model", trained_only=True)
    resolved = config(tmp_path / "model")["resolved"]
    assert {tower for tower, saved in resolved.items() if "source" in saved} == left_out
    names = stored(tmp_path / "model")
    assert not any(name.startswith(f"encoder.{tower}.") for name in names for tower in left_out)
    loaded = from_pretrained(tmp_path / "model", registry=plugin)
    own, back = model.state_dict(), loaded.state_dict()
    assert set(own) == set(back)
    assert all(torch.equal(tensor, back[name]) for name, tensor in own.items())
    assert torch.equal(model.match(PICTURES, CAPTIONS), loaded.match(PICTURES, CAPTIONS))
    needs = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in loaded.named_parameters()} == needs


def test_a_source_is_a_name_a_distribution_and_a_digest(frozen: Model, tmp_path: Path) -> None:
    frozen.save(tmp_path / "model", trained_only=True)
    source = config(tmp_path / "model")["resolved"]["vision"]["source"]
    assert (source["name"], source["distribution"]) == ("still:eye", "renaissance-plugin-still 2.1")
    assert len(source["digest"]) == 64
    assert source["repository"] is None


def test_a_tower_with_other_weights_is_refused(frozen: Model, plugin: Registry, tmp_path: Path) -> None:
    frozen.save(tmp_path / "model", trained_only=True)
    change_config(tmp_path / "model", "vision", digest="0" * 64)
    with pytest.raises(ModelFileError, match=r"The vision tower 'still:eye' of renaissance-plugin-still 2\.1.*SHA-256"):
        from_pretrained(tmp_path / "model", registry=plugin, verify=False)


def test_a_tower_that_moved_since_is_not_left_out(plugin: Registry, tmp_path: Path) -> None:
    model = model_of("frozen both, ", plugin)
    with torch.no_grad():  # as a stage that trained it before it was frozen would have
        next(model.encoder.vision.parameters()).mul_(1.5)
    with pytest.raises(ModelFileError, match=r"other weights than 'still:eye' has here.*save the model with all"):
        model.save(tmp_path / "model", trained_only=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rules", ["", "random both, frozen both, ", "frozen both, bitfit both, "])
def test_only_pretrained_towers_that_are_wholly_frozen_are_left_out(
    rules: str, plugin: Registry, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match="pretrained and wholly frozen, and this model has none"):
        model_of(rules, plugin).save(tmp_path / "model", trained_only=True)


def test_a_model_without_its_towers_can_be_saved_with_them_again(
    frozen: Model, plugin: Registry, tmp_path: Path
) -> None:
    frozen.save(tmp_path / "small", trained_only=True, dtype="float16")
    from_pretrained(tmp_path / "small", registry=plugin).save(tmp_path / "large")
    small, large = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("small", "large"))
    assert small < large / 2
    from_pretrained(tmp_path / "large", registry=plugin)


def test_blocks_that_the_fusion_shares_with_a_tower_come_back_with_it(plugin: Registry, tmp_path: Path) -> None:
    fusion = 'text-cross-attention(layers=1, text_blocks="shared", heads=2)'
    spec = f"still:eye({SIZES}) + still:ear({SIZES}), frozen both, {fusion}"
    model = build(spec, tasks=("itm",), registry=plugin).eval()
    model.save(tmp_path / "model", trained_only=True)
    loaded = from_pretrained(tmp_path / "model", registry=plugin)
    assert torch.equal(model.match(PICTURES, CAPTIONS), loaded.match(PICTURES, CAPTIONS))


def test_pushing_leaves_them_out_as_well(
    frozen: Model, plugin: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HubServer(tokens={"secret": "org"}) as hub:
        use(hub, monkeypatch)
        frozen.push_to_hub("org/small", token="secret", trained_only=True, dtype="float16")
        loaded = from_pretrained("org/small", cache_dir=tmp_path, trust=["still"], registry=plugin)
    told = loaded.match(PICTURES, CAPTIONS)
    torch.testing.assert_close(told, frozen.match(PICTURES, CAPTIONS), rtol=0, atol=1e-2)


def test_a_tower_is_taken_at_the_commit_that_is_named_though_its_branch_moved(
    plugin: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: Any = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    words = BertModel(BertConfig(vocab_size=4096, max_position_embeddings=64, **sizes))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with HubServer(tokens={"secret": "org"}) as hub:
        use(hub, monkeypatch)
        api = HfApi(endpoint=hub.endpoint, token="secret")
        api.create_repo("org/words")
        api.upload_folder(repo_id="org/words", folder_path=saved(words, tmp_path / "words"))
        spec = f"still:eye({SIZES}) + transformers:org/words, frozen both, lxmert(layers=1, width=32, heads=2)"
        model = build(spec, tasks=("itm",), registry=plugin).eval()
        model.save(tmp_path / "model", trained_only=True)
        source = config(tmp_path / "model")["resolved"]["text"]["source"]
        assert (source["repository"], source["revision"]) == ("org/words", hub.repos["org/words"].branches["main"])
        with torch.no_grad():
            words.embeddings.word_embeddings.weight.add_(1.0)
        api.upload_folder(repo_id="org/words", folder_path=saved(words, tmp_path / "later"))
        loaded = from_pretrained(tmp_path / "model", registry=plugin)
        assert torch.equal(model.match(PICTURES, CAPTIONS), loaded.match(PICTURES, CAPTIONS))
        assert loaded.spec == model.spec
        change_config(tmp_path / "model", "text", revision=None)
        with pytest.raises(ModelFileError, match="other weights"):
            from_pretrained(tmp_path / "model", registry=plugin)


# --- models that ship -------------------------------------------------------------------------------------------------


def test_a_bundled_model_needs_no_network_unless_the_hubs_is_asked_for(
    frozen: Model, plugin: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen.save(tmp_path / "cards" / "tiny")
    monkeypatch.setattr("renaissance.zoo.FOLDER", tmp_path / "cards")
    with HubServer() as hub:
        use(hub, monkeypatch)
        monkeypatch.delenv("HF_ENDPOINT", raising=False)
        loaded = renaissance.from_pretrained("renaissance/tiny", registry=plugin)
        assert torch.equal(loaded.match(PICTURES, CAPTIONS), frozen.match(PICTURES, CAPTIONS))
        assert hub.requests == []
        with pytest.raises(HubError, match="no repository 'renaissance/tiny'"):
            from_pretrained("renaissance/tiny", revision="main", registry=plugin, cache_dir=tmp_path)
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        with pytest.raises(HubError, match="no repository 'renaissance/tiny'"):
            from_pretrained("renaissance/tiny", registry=plugin, cache_dir=tmp_path)
