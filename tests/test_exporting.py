"""Exported files against the model: on onnxruntime and on torch.export, at sizes that were not traced."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import Tensor

from renaissance.api import BackboneEntry, TaskEntry, TextInput, VisionInput
from renaissance.errors import CapabilityError, ExportError, OutputError, SpecError
from renaissance.exporting import Format, Part, export, exporter, programs, register_inputs
from renaissance.pretrained import Model, build
from renaissance.registry import Component, Registry
from renaissance.spec import LIBRARIES

TINY_VIT = "tiny-vit(layers=2, width=32, heads=2, mlp_width=64, image_size=32, patch_size=8)"
TINY_BERT = "tiny-bert(layers=2, width=32, heads=2, mlp_width=64)"
CLIP_SIZES = '{"width": 32, "layers": 2, "heads": 2, "embed_dim": 24}'
SIZES = '{"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "patch_size": 8}'
SWIN = '{"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}'
HF_TEXT = 'layers=2, width=32, heads=2, mlp_width=64, max_tokens=40, tokenizer="renaissance"'
CAPTIONS = ["a red cup on a table", "rain", "two dogs run in a big park near the old stone bridge"]
PICTURES = [Image.linear_gradient("L").convert("RGB").rotate(30 * turn) for turn in range(5)]


def made(spec: str, *tasks: str) -> Model:
    """Return a model of which no parameter is at a value that an initialisation leaves."""
    model = build(f"{spec}, random both", tasks=tasks, registry=Registry())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return model.eval()


def ran(file: Path, **inputs: Tensor) -> list[Any]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    found: list[Any] = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return found


def read(folder: Path) -> Any:
    return json.loads((folder / "export.json").read_text())


@pytest.fixture(scope="module")
def model() -> Model:
    return made(f"{TINY_VIT} + {TINY_BERT}, frozen text, lxmert(layers=1, width=32, heads=2)", "itc", "itm")


@pytest.fixture(scope="module")
def dual(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "dual"
    export(model, folder)
    return folder


# --- parity -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 5])
def test_onnxruntime_gives_the_vectors_of_embed_at_other_batch_sizes_and_lengths(
    model: Model, dual: Path, count: int
) -> None:
    texts = CAPTIONS[:count] + ["snow " * 60] * (count == 5)  # past the longest, among short ones: padded
    expected = model.embed(PICTURES[:count], texts)
    assert expected.images is not None
    assert expected.texts is not None
    (images,) = ran(dual / "images.onnx", pixels=model.encoder.vision.processor(PICTURES[:count]).pixels)
    given = model.encoder.text.processor(texts)
    (vectors,) = ran(dual / "texts.onnx", token_ids=given.token_ids, mask=given.mask)
    np.testing.assert_allclose(images, expected.images, rtol=0, atol=1e-4)
    np.testing.assert_allclose(vectors, expected.texts, rtol=0, atol=1e-4)


TOWERS: Mapping[str, tuple[Part, str]] = {
    "timm ViT": ("vision", f"timm:test_vit(image_size=64) + {TINY_BERT}"),
    "open_clip text": ("text", f"{TINY_VIT} + open-clip:ViT-B-32(overrides={CLIP_SIZES})"),
}
MORE_TOWERS: Mapping[str, tuple[Part, str]] = {
    "timm CNN": ("vision", f"timm:test_resnet + {TINY_BERT}"),
    "open_clip ViT": (
        "vision",
        f'open-clip:ViT-B-32(image_size=32, overrides={CLIP_SIZES[:-1]}, "patch_size": 16}}) + {TINY_BERT}',
    ),
    "CLIP's ViT": ("vision", f"transformers:clip_vision_model(image_size=32, overrides={SIZES}) + {TINY_BERT}"),
    "CLIP's text": ("text", f'{TINY_VIT} + transformers:clip_text_model({HF_TEXT}, overrides={{"eos_token_id": 3}})'),
    "SigLIP's text": ("text", f"{TINY_VIT} + transformers:siglip_text_model({HF_TEXT})"),
    "T5": ("text", f"{TINY_VIT} + transformers:t5({HF_TEXT})"),
    "Swin": ("vision", f"transformers:swin(image_size=64, overrides={SWIN}) + {TINY_BERT}"),
    "ModernBERT": ("text", f"{TINY_VIT} + transformers:modernbert({HF_TEXT})"),
}


@pytest.mark.parametrize("name", [*TOWERS, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE_TOWERS)])
def test_onnxruntime_gives_the_tokens_and_the_vector_of_a_tower(name: str, tmp_path: Path) -> None:
    part, spec = {**TOWERS, **MORE_TOWERS}[name]
    model = made(spec)
    told = export(model, tmp_path / "tower", part=part)
    tower = getattr(model.encoder, part)
    assert told.graphs[0].difference <= 1e-4
    for items in (1, 3):
        given = tower.processor((PICTURES if part == "vision" else CAPTIONS)[:items])
        inputs = {"pixels": given.pixels} if part == "vision" else {"token_ids": given.token_ids, "mask": given.mask}
        with torch.no_grad():
            features = tower(given)
        tokens, mask, pooled = ran(tmp_path / "tower" / f"{part}.onnx", **inputs)
        assert mask.tolist() == features.mask.tolist()
        np.testing.assert_allclose(tokens[mask], features.tokens[features.mask], rtol=1e-4, atol=1e-4)
        assert not tokens[~mask].any()
        np.testing.assert_allclose(pooled, features.pooled, rtol=1e-4, atol=1e-4)


def test_a_tower_that_sees_its_padding_is_given_all_of_it_inside_the_graph(tmp_path: Path) -> None:
    model = made(MORE_TOWERS["SigLIP's text"][1])
    (graph,) = export(model, tmp_path / "text", part="text", format="torch-export").graphs
    assert graph.text_length == 40
    assert {tuple(shapes["mask"]) for shapes in graph.compared} >= {(2, 40)}
    assert any(shapes["mask"][1] < 40 for shapes in graph.compared)


def test_torch_export_needs_nothing_of_ours_to_run(model: Model, tmp_path: Path) -> None:
    export(model, tmp_path / "dual", format="torch-export")
    given = model.encoder.text.processor(CAPTIONS)
    program = torch.export.load(tmp_path / "dual" / "texts.pt2")
    with torch.no_grad():
        (vectors,) = program.module()(given.token_ids, given.mask)
    torch.testing.assert_close(vectors, model.embed(texts=CAPTIONS).texts, rtol=0, atol=1e-5)
    assert sum(value.numel() for value in program.state_dict.values()) < sum(
        parameter.numel() for parameter in model.parameters()
    )  # the other tower is not in it


@pytest.mark.parametrize("kind", [pytest.param("onnx", marks=pytest.mark.slow), "torch-export"])
def test_a_matcher_gives_the_probabilities_of_match(model: Model, tmp_path: Path, kind: Format) -> None:
    told = export(model, tmp_path / "match", part="match", format=kind)
    pixels = model.encoder.vision.processor(PICTURES[:3]).pixels
    given = model.encoder.text.processor(CAPTIONS)
    file = tmp_path / "match" / told.graphs[0].file
    if kind == "onnx":
        (chances,) = ran(file, pixels=pixels, token_ids=given.token_ids, mask=given.mask)
    else:
        with torch.no_grad():
            (chances,) = torch.export.load(file).module()(pixels, given.token_ids, given.mask)
    np.testing.assert_allclose(chances, model.match(PICTURES[:3], CAPTIONS), rtol=0, atol=1e-4)


def tiny(component: Component) -> str:
    options = ", ".join(f"{name}={json.dumps(value)}" for name, value in component.entry.tiny.items())
    return f"{component.qualified}({options})"


TINY = {
    component.qualified: component
    for component in Registry().components()
    if not isinstance(component.entry, TaskEntry) and component.qualified not in (*LIBRARIES, "dual")
}
FAST = ("post-norm-vit",)
SLOW = tuple(pytest.param(name, marks=pytest.mark.slow) for name in TINY if name not in FAST)


@pytest.mark.parametrize("name", [*FAST, *SLOW])
def test_every_component_that_ships_can_be_exported(name: str, tmp_path: Path) -> None:
    entry, line = TINY[name].entry, tiny(TINY[name])
    part: Part
    match entry:
        case BackboneEntry(modality="vision"):
            part, spec = "vision", f"{line} + {TINY_BERT}"
        case BackboneEntry():
            part, spec = "text", f"{TINY_VIT} + {line}"
        case _:
            part, spec = "match", f"{TINY_VIT} + {TINY_BERT}, {line}"
    model = made(spec, *(["itm"] if part == "match" else []))
    (graph,) = export(model, tmp_path / "out", part=part, format="torch-export").graphs
    assert graph.difference <= 1e-4


@pytest.mark.parametrize("base", [pytest.param(TINY_VIT, marks=pytest.mark.slow), TINY_BERT])
def test_one_tower_models_give_vectors_too(base: str, tmp_path: Path) -> None:
    model = build(f"{base}, one-tower, random encoder", tasks="itc", registry=Registry())
    told = export(model, tmp_path / "dual", format="torch-export")
    assert [graph.file for graph in told.graphs] == ["images.pt2", "texts.pt2"]
    with pytest.raises(CapabilityError, match="a one-tower model has none of its own"):
        export(model, tmp_path / "tower", part="text")


def test_towers_are_exported_on_their_own_inputs_once_these_are_registered(model: Model) -> None:
    register_inputs()
    register_inputs()
    tower = made(f"{TINY_VIT} + {TINY_BERT}").encoder
    pixels, texts = VisionInput(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)), tower.text.processor(CAPTIONS)
    with torch.no_grad():
        for part, inputs in ((tower.vision, pixels), (tower.text, TextInput(texts.token_ids, texts.mask))):
            program = torch.export.export(part, (inputs,), strict=False)
            torch.testing.assert_close(program.module()(inputs).tokens, part(inputs).tokens)


# --- the folder -------------------------------------------------------------------------------------------------------


def test_the_folder_says_what_its_files_read_and_give(model: Model, dual: Path) -> None:
    told = read(dual)
    images, texts = told["graphs"]
    assert images["inputs"] == {"pixels": {"dtype": "uint8", "shape": ["images", 3, 32, 32]}}
    assert texts["inputs"]["token_ids"] == {"dtype": "int64", "shape": ["texts", "tokens"]}
    assert texts["inputs"]["mask"] == {"dtype": "bool", "shape": ["texts", "tokens"]}
    assert texts["outputs"] == {"vectors": {"dtype": "float32", "shape": ["texts", 256]}}
    assert told["vision_processor"] == model.encoder.vision.processor.describe()
    assert told["opset"] >= 18
    head: Any = model.tasks["itc"]
    assert told["similarity"]["scale"] == pytest.approx(head.scale.item())
    assert {shapes["mask"][0] for shapes in texts["compared"]} == {1, 2, 5}


def test_every_file_of_the_folder_has_its_digest(dual: Path) -> None:
    digests = {path: hashlib.sha256((dual / path).read_bytes()).hexdigest() for path in read(dual)["sha256"]}
    assert digests == read(dual)["sha256"]
    files = {path.relative_to(dual).as_posix() for path in dual.rglob("*") if path.is_file()}
    assert files == {*digests, "export.json"}
    assert {"vision/preprocessor.json", "text/tokenizer.json"} < files


def test_somebody_without_renaissance_and_torch_can_use_it(model: Model, dual: Path) -> None:
    code = f"""
import json, sys
import numpy, onnxruntime, tokenizers
folder, text = sys.argv[1], {CAPTIONS[0]!r}
encoded = tokenizers.Tokenizer.from_file(folder + "/text/tokenizer.json").encode(text)
inputs = {{"token_ids": numpy.array([encoded.ids]), "mask": numpy.array([encoded.attention_mask], dtype=bool)}}
(vectors,) = onnxruntime.InferenceSession(folder + "/texts.onnx").run(None, inputs)
print(json.dumps([vectors.tolist(), [name for name in ("torch", "renaissance") if name in sys.modules]]))
"""
    command = [sys.executable, "-I", "-c", code, str(dual)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    vectors, loaded = json.loads(done.stdout)
    assert loaded == []
    expected = model.embed(texts=CAPTIONS[0]).texts
    assert expected is not None
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-4)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_file_that_gives_other_values_is_not_left_and_the_difference_is_told(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = programs.writer("torch-export")

    def opened(path: Path) -> programs.Run:
        run = honest.opened(path)
        return lambda inputs: tuple(value + 0.25 * value.is_floating_point() for value in run(inputs))

    monkeypatch.setattr(exporter, "writer", lambda name: replace(honest, opened=opened))
    with pytest.raises(ExportError, match=r"vision\.pt2: 'tokens' at inputs .* differs from the model by up to 0\.25"):
        export(model, tmp_path / "vision", part="vision", format="torch-export")
    assert list(tmp_path.iterdir()) == []


def test_a_tower_whose_code_follows_from_values_is_refused_with_the_reason(tmp_path: Path) -> None:
    model = made(f"{TINY_VIT} + transformers:nystromformer({HF_TEXT})")
    with pytest.raises(ExportError, match=r"'text' of '.*nystromformer.*' cannot be exported: .* Choose another"):
        export(model, tmp_path / "text", part="text", format="torch-export")
    assert list(tmp_path.iterdir()) == []


def test_a_tower_that_sorts_texts_by_length_is_refused_for_that(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = made(f"{TINY_VIT} + transformers:mobilebert({HF_TEXT})")
    with pytest.raises(ExportError, match=r"\(padding changes what it gives, so that it sorts texts"):
        export(model, tmp_path / "text", part="text", format="torch-export")
    assert capfd.readouterr() == ("", "")  # torch prints graphs and advice to those who make it


def test_what_is_there_already_is_kept(model: Model, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        export(model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_what_a_model_cannot_give_is_refused_by_name(model: Model, tmp_path: Path) -> None:
    bare = made(f"{TINY_VIT} + {TINY_BERT}", "mlm")
    with pytest.raises(CapabilityError, match="Part 'dual' needs a head trained for 'itc'"):
        export(bare, tmp_path / "dual")
    with pytest.raises(SpecError, match="no part 'fusion'"):
        export(model, tmp_path / "fusion", part="fusion")  # type: ignore[arg-type]  # what a user may do
    with pytest.raises(SpecError, match="no export format 'tflite'"):
        export(model, tmp_path / "lite", format="tflite")  # type: ignore[arg-type]  # what a user may do


def test_the_model_is_left_as_it_was(model: Model, tmp_path: Path) -> None:
    model.train()
    before = [(module.training, [p.requires_grad for p in module.parameters()]) for module in model.modules()]
    export(model, tmp_path / "vision", part="vision", format="torch-export")
    assert [(module.training, [p.requires_grad for p in module.parameters()]) for module in model.modules()] == before
    model.eval()
