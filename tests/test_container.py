from __future__ import annotations

import contextlib
import json
import pickle
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from renaissance.api import BackboneEntry
from renaissance.assemble import Assembly, assemble
from renaissance.container import load, save
from renaissance.errors import ModelFileError, NonFiniteError, OutputError, PluginError, RenaissanceError
from renaissance.manifest import files_in, write_manifest
from renaissance.registry import Registry
from renaissance.resolve import resolve
from renaissance.tensors import ALIGNED
from renaissance.toolkit.text import WORDPIECE

REGISTRY = Registry()
ALL_TASKS = ("mlm", "itm", "itc")
TINY = "tiny-vit(width=32, layers=1, heads=2, mlp_width=32) + tiny-bert(width=32, layers=1, heads=2, mlp_width=32)"
PICTURES = [Image.linear_gradient("L").convert("RGB").rotate(angle) for angle in (0, 90)]
CAPTIONS = ["a red cup on a table", "two"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny() -> Assembly:
    return built(f"{TINY}, random both, lxmert(layers=1, width=32, heads=2)", ALL_TASKS)


@pytest.fixture(scope="module")
def original(tiny: Assembly, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save(tiny, folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of a saved model, to be damaged."""
    shutil.copytree(original, tmp_path / "model")
    return tmp_path / "model"


def built(spec: object, tasks: tuple[str, ...] = ()) -> Assembly:
    return assemble(resolve(spec, tasks, registry=REGISTRY))


def outputs(assembly: Assembly) -> list[Tensor]:
    """Everything that a model says of two pictures and two captions of unequal length."""
    encoder = assembly.eval().encoder
    with torch.no_grad():
        vision = encoder.encode_vision(encoder.vision.processor(PICTURES))
        text = encoder.encode_text(encoder.text.processor(CAPTIONS))
        joint = encoder.fuse(vision, text, encoder.outputs)
    streams = [vision, text, *(stream for stream in (joint.vision, joint.text) if stream is not None)]
    return [stream.tokens for stream in streams] + ([] if joint.pooled is None else [joint.pooled])


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_in(folder)}


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def change_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change config.json, and the manifest with it: the fault is in the content."""
    change_json(folder / "config.json", change)
    write_manifest(folder)


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    state = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(state)
    save_file(state, path)
    write_manifest(folder)


# --- the round trip ---------------------------------------------------------------------------------------------------


def tower(entry: BackboneEntry) -> dict[str, Any]:
    """The CPU-sized instance of a backbone, as a spec names it."""
    options = dict(entry.tiny)
    name = f"{entry.name}:{options.pop('model')}" if entry.library else entry.name
    return {entry.modality: {"name": name, "options": options}}


BACKBONES = [c.entry for c in REGISTRY.components("backbone") if isinstance(c.entry, BackboneEntry)]
HEADS = [c.entry for c in REGISTRY.components("fusion-head")]
SPECS = [
    *(pytest.param(tower(entry), id=f"{entry.name}-{entry.modality}") for entry in BACKBONES),
    *(pytest.param({"fusion": {"name": head.name, "options": dict(head.tiny)}}, id=head.name) for head in HEADS),
    *(
        pytest.param({"vision": {"name": f"timm:{name}"}}, id=name)
        for name in ("test_resnet", "test_efficientnet", "eva02_tiny_patch14_224")
    ),
    pytest.param({"rules": [{"action": "frozen", "part": {"name": "text"}}]}, id="frozen-text"),
]


def two_towers(parts: dict[str, Any]) -> dict[str, Any]:
    sizes = {"width": 32, "layers": 2, "heads": 2, "mlp_width": 32}
    return {
        "architecture": "two-tower",
        "vision": {"name": "tiny-vit", "options": sizes},
        "text": {"name": "tiny-bert", "options": sizes},
        "fusion": {"name": "lxmert", "options": {"layers": 1, "width": 32, "heads": 2}},
        **parts,
        "rules": [{"action": "random", "part": {"name": "both"}}, *parts.get("rules", [])],
    }


@pytest.mark.parametrize("parts", SPECS)
def test_a_model_comes_back_bit_for_bit(parts: dict[str, Any], tmp_path: Path) -> None:
    spec = two_towers(parts)
    no_masks = spec["text"]["name"].startswith("open-clip:")
    only_contrast = spec["fusion"]["name"] == "dual"
    model = built(spec, ("itc",) if only_contrast else ("itm", "itc") if no_masks else ALL_TASKS)
    save(model, tmp_path / "first")
    loaded = load(tmp_path / "first", registry=REGISTRY)
    assert loaded.plan == model.plan
    before, after = model.state_dict(), loaded.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in loaded.parameters()]
    assert all(torch.equal(one, two) for one, two in zip(outputs(model), outputs(loaded), strict=True))
    save(loaded, tmp_path / "second")
    assert content(tmp_path / "first") == content(tmp_path / "second")


def test_weights_of_a_library_are_aligned_as_saved_ones_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=4096, **sizes)).save_pretrained("models/bert")
    special = {"pad_token": "[PAD]", "mask_token": "[MASK]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_file=str(WORDPIECE / "tokenizer.json"), **special).save_pretrained("models/bert")
    spec = two_towers({"text": {"name": "transformers:models/bert"}})
    model = built({**spec, "rules": [{"action": "random", "part": {"name": "vision"}}]}, ALL_TASKS)
    save(model, tmp_path / "model")
    loaded = load(tmp_path / "model", registry=REGISTRY)
    for one in (model, loaded):
        assert {parameter.data_ptr() % ALIGNED for parameter in one.parameters()} == {0}
    assert all(torch.equal(one, two) for one, two in zip(outputs(model), outputs(loaded), strict=True))


def test_a_loaded_model_is_in_evaluation_mode_and_whole(folder: Path) -> None:
    loaded = load(folder, registry=REGISTRY)
    assert not any(module.training for module in loaded.modules())
    assert not any(tensor.is_meta for tensor in (*loaded.parameters(), *loaded.buffers()))


def test_training_a_loaded_model_leaves_its_files_alone(folder: Path) -> None:
    before = content(folder)
    loaded = load(folder, registry=REGISTRY)
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.add_(1)
    assert content(folder) == before


def test_loading_opens_no_socket_and_initialises_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    def only_on_meta(initialise: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def checked(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            assert tensor.is_meta, "a weight was initialised"
            return initialise(tensor, *args, **kwargs)

        return checked

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    for name in (name for name in dir(torch.nn.init) if name.endswith("_") and not name.startswith("_")):
        monkeypatch.setattr(torch.nn.init, name, only_on_meta(getattr(torch.nn.init, name)))
    state = torch.random.get_rng_state()
    load(folder, registry=REGISTRY)
    assert torch.equal(torch.random.get_rng_state(), state)


# --- what does not fit ------------------------------------------------------------------------------------------------

BIAS = "tasks.itm.head.bias"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param(lambda state: state.pop(BIAS), rf"the tensor '{BIAS}' is missing", id="missing"),
        pytest.param(lambda state: state.update(more=torch.zeros(1)), "'more' belongs to no part", id="extra"),
        pytest.param(lambda state: state.update({BIAS: torch.zeros(2)}), rf"'{BIAS}' has the shape \[2\]", id="shape"),
        pytest.param(
            lambda state: state.update({BIAS: torch.zeros(1).half()}),
            "has the type float16, and not float32",
            id="type",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    folder: Path, change: Callable[[dict[str, Tensor]], object], told: str
) -> None:
    change_tensors(folder, change)
    with pytest.raises(ModelFileError, match=told):
        load(folder, registry=REGISTRY)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "text/tokenizer.json", "vision/preprocessor.json"]
)
def test_one_wrong_bit_in_any_file_is_found(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(ModelFileError, match=name):
        load(folder, registry=REGISTRY)


def test_a_truncated_or_missing_file_is_named(folder: Path) -> None:
    for name in files_in(folder):
        if name == "README.md":
            continue
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(ModelFileError, match=name):
            load(folder, registry=REGISTRY)
        (folder / name).unlink()
        with pytest.raises(ModelFileError, match=name):
            load(folder, registry=REGISTRY)
        (folder / name).write_bytes(data)
    load(folder, registry=REGISTRY)


def test_an_edited_card_does_no_harm(folder: Path) -> None:
    (folder / "README.md").write_text("# My model\n")
    load(folder, registry=REGISTRY)


def test_a_pickle_under_the_name_of_weights_is_refused_and_never_opened(folder: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (canary,))

    (folder / "model.safetensors").write_bytes(pickle.dumps(Payload()))
    write_manifest(folder)
    with pytest.raises(ModelFileError, match="no safetensors file"):
        load(folder, registry=REGISTRY)
    assert not canary.exists()


@pytest.mark.parametrize("key", ["format", "api"])
def test_a_newer_form_says_what_to_upgrade(folder: Path, key: str) -> None:
    change_config(folder, lambda config: config.update({key: 2, "new": {}}))
    with pytest.raises(ModelFileError, match=rf"{key} 2.*pip install --upgrade renaissance-vl"):
        load(folder, registry=REGISTRY)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param(lambda config: config.update(library="other"), "another library's", id="library"),
        pytest.param(lambda config: config.update(surprise=1), "unknown key 'surprise'", id="unknown-key"),
        pytest.param(lambda config: config["resolved"].pop("text"), "must describe both towers", id="no-text"),
        pytest.param(lambda config: config["spec"]["vision"].update(name="vit-bse"), "vit-bse", id="unknown-name"),
        pytest.param(lambda config: config["tasks"]["itc"]["options"].update(width="2"), "width", id="option"),
        pytest.param(
            lambda config: config["resolved"]["vision"].update(config={}),
            "no model can be built|config",
            id="no-config",
        ),
        pytest.param(
            lambda config: config["resolved"]["text"]["config"].update(auto_map={"AutoModel": "x.py"}),
            "'auto_map' is not allowed",
            id="code",
        ),
    ],
)
def test_a_config_that_is_wrong_is_refused(folder: Path, change: Callable[[dict[str, Any]], object], told: str) -> None:
    change_config(folder, change)
    with pytest.raises(ModelFileError, match=told):
        load(folder, registry=REGISTRY)


@pytest.mark.parametrize(
    "text", ['{"library": "renaissance", "library": "x"}', "[1]", '{"format": NaN}', "[" * 100_000]
)
def test_json_that_two_readers_could_read_in_two_ways_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelFileError, match=r"config\.json"):
        load(folder, registry=REGISTRY)


def test_a_missing_plugin_is_named_with_its_pip_line(folder: Path) -> None:
    change_config(folder, lambda config: config["plugins"].update(xyz="renaissance-plugin-xyz 0.3.1"))
    with pytest.raises(PluginError, match=r"plugin 'xyz'.*pip install renaissance-plugin-xyz==0\.3\.1$"):
        load(folder, registry=REGISTRY)


def test_a_pip_line_never_repeats_a_distribution_of_another_name(folder: Path) -> None:
    change_config(folder, lambda config: config["plugins"].update(xyz="evil-package 1.0"))
    with pytest.raises(PluginError, match=r"pip install renaissance-plugin-xyz$"):
        load(folder, registry=REGISTRY)


def test_a_plugin_that_only_the_spec_names_is_missed_as_well(folder: Path) -> None:
    change_config(folder, lambda config: config["spec"]["vision"].update(name="xyz:vit"))
    with pytest.raises(PluginError, match="renaissance-plugin-xyz"):
        load(folder, registry=REGISTRY)


# --- hostile folders --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["text/added_tokens.json", "text/tokenizer_config.json", "model.safetensors.index.json"]
)
def test_a_file_that_loading_would_read_must_be_in_the_manifest(folder: Path, name: str) -> None:
    (folder / name).write_text("{}")
    with pytest.raises(ModelFileError, match=r"which its manifest does not list"):
        load(folder, registry=REGISTRY)


@pytest.mark.parametrize(
    "name", ["../x.json", "/etc/passwd", "text/../../x.json", "weights.bin", "text/.env", "manifest.json"]
)
def test_a_manifest_names_only_files_of_a_model(folder: Path, name: str) -> None:
    facts = {"size": 1, "sha256": "0" * 64, "xxh3": "0" * 32}
    change_json(folder / "manifest.json", lambda manifest: manifest["files"].update({name: facts}))
    with pytest.raises(ModelFileError, match="which is no file of a model"):
        load(folder, registry=REGISTRY)


@pytest.mark.parametrize(
    "entry",
    [{"auto_map": {"AutoTokenizer": ["a.py"]}}, {"trust_remote_code": True}, {"deep": [{"vocab_file": ".env"}]}],
)
def test_a_tokenizer_config_that_names_code_or_other_files_is_refused(folder: Path, entry: dict[str, Any]) -> None:
    (folder / "text/tokenizer_config.json").write_text(json.dumps(entry))
    write_manifest(folder)
    with pytest.raises(ModelFileError, match="is not allowed in a saved model"):
        load(folder, registry=REGISTRY)


# --- saving -----------------------------------------------------------------------------------------------------------


def test_non_finite_weights_are_not_saved_and_leave_nothing_behind(tmp_path: Path, original: Path) -> None:
    broken = load(original, registry=REGISTRY)
    with torch.no_grad():
        broken.get_parameter(BIAS)[0] = float("nan")
    with pytest.raises(NonFiniteError, match=BIAS):
        save(broken, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_keeps_the_model_that_was_there(folder: Path) -> None:
    before = content(folder)
    broken = load(folder, registry=REGISTRY)
    with torch.no_grad():
        broken.get_parameter(BIAS)[0] = float("inf")
    with pytest.raises(NonFiniteError):
        save(broken, folder)
    assert content(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_weights_that_would_not_load_again_are_not_saved(original: Path, tmp_path: Path) -> None:
    cast = load(original, registry=REGISTRY).bfloat16()
    with pytest.raises(ModelFileError, match="bfloat16"):
        save(cast, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_saving_over_a_model_replaces_it(folder: Path, tiny: Assembly) -> None:
    before = content(folder)
    (folder / "scores.json").write_text("{}")
    save(tiny, folder, extra={"ledger.json": b"{}"})
    after = content(folder)
    assert after.pop("ledger.json") == b"{}"
    assert {**after, "manifest.json": b""} == {**before, "manifest.json": b""}
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("kind", ["other files", "own files beside", "a file"])
def test_what_is_no_model_is_never_replaced(kind: str, folder: Path, tiny: Assembly) -> None:
    target = folder if kind == "own files beside" else folder.parent / "other"
    if kind == "a file":
        target.write_text("precious")
    else:
        target.mkdir(exist_ok=True)
        (target / "notes.txt").write_text("precious")
    with pytest.raises(OutputError, match=r"Choose another"):
        save(tiny, target)
    assert (target if kind == "a file" else target / "notes.txt").read_text() == "precious"


def test_an_empty_folder_may_be_filled(tmp_path: Path, tiny: Assembly) -> None:
    (tmp_path / "model").mkdir()
    save(tiny, tmp_path / "model")
    load(tmp_path / "model", registry=REGISTRY)


def test_a_folder_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path, tiny: Assembly) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        save(tiny, tmp_path / "file" / "model")


@pytest.mark.parametrize("name", ["config.json", "../x", "weights.bin"])
def test_extra_files_are_those_that_a_model_may_hold(name: str, tmp_path: Path, tiny: Assembly) -> None:
    with pytest.raises(OutputError):
        save(tiny, tmp_path / "model", extra={name: b""})
    assert list(tmp_path.iterdir()) == []


def flipped(data: bytes, generator: torch.Generator) -> bytes:
    """Turn one bit of the first 4,000 bytes."""
    changed = bytearray(data)
    at = int(torch.randint(min(len(data), 4000), (1,), generator=generator))
    changed[at] ^= 1 << int(torch.randint(8, (1,), generator=generator))
    return bytes(changed)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_random_damage_is_always_a_typed_error(folder: Path, name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    clean = (folder / name).read_bytes()
    for _ in range(100):
        (folder / name).write_bytes(flipped(clean, generator))
        with pytest.raises(ModelFileError):
            load(folder, registry=REGISTRY)


def test_a_damaged_header_under_a_manifest_that_agrees_never_ends_in_an_untyped_error(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    clean = (folder / "model.safetensors").read_bytes()
    for _ in range(100):
        (folder / "model.safetensors").write_bytes(flipped(clean, generator))
        write_manifest(folder)
        with contextlib.suppress(RenaissanceError):  # a flip in the header may be harmless, such as a space in it
            load(folder, registry=REGISTRY)


def test_random_damage_of_the_manifest_is_a_typed_error_or_harmless(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    clean = (folder / "manifest.json").read_bytes()
    for _ in range(100):
        (folder / "manifest.json").write_bytes(flipped(clean, generator))
        with contextlib.suppress(RenaissanceError):  # the card's digests and the SHA-256 are not read at each load
            load(folder, registry=REGISTRY)
