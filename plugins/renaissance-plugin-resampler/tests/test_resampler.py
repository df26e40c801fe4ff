"""The resampler against the one of transformers, and the head around it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from renaissance_plugin_resampler.entries import ResamplerOptions
from renaissance_plugin_resampler.head import ResamplerFusion, build
from renaissance_plugin_resampler.resampler import ACTIVATIONS, PerceiverResampler
from torch import Tensor, nn
from transformers import IdeficsConfig
from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

import renaissance
from renaissance.api import Features, Output, TowerFacts
from renaissance.errors import SpecError
from renaissance.resolve import resolve

REFERENCE = "transformers.IdeficsPerceiverResampler"
WIDTH, LATENTS, VISION, TEXT = 16, 3, 12, 20
SIZES: dict[str, Any] = {"latents": LATENTS, "resampler_layers": 2, "width": WIDTH, "heads": 2, "dropout": 0.0}
EVERY: frozenset[Output] = frozenset({"text", "pooled"})
each_join = pytest.mark.parametrize("join", ["cross", "merged"])
each_token = pytest.mark.parametrize("class_token", [True, False])


def randomised(module: Any) -> Any:
    torch.manual_seed(3)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.eval()


def pair(*, qk_norm: bool) -> tuple[PerceiverResampler, nn.Module]:
    """Return our resampler and that of transformers with the same random weights."""
    config = IdeficsConfig(vision_config={"embed_dim": WIDTH}, perceiver_config={"qk_layer_norms_perceiver": qk_norm})
    theirs = randomised(IdeficsPerceiverResampler(config, WIDTH, 2, 2, WIDTH // 2, LATENTS))
    ours = PerceiverResampler(ResamplerOptions(**SIZES, activation="relu", qk_norm=qk_norm)).eval()
    names = {
        "context_layer_norm": "context_norm",
        "latents_layer_norm": "latents_norm",
        "q_proj": "query",
        "k_proj": "key",
        "v_proj": "value",
        "output_proj": "output",
        "q_layer_norm": "query_norm",
        "k_layer_norm": "key_norm",
    }
    with torch.no_grad():
        ours.latents.copy_(theirs.latents)
    ours.norm.load_state_dict(theirs.layer_norm.state_dict())
    for layer, (attention, mlp) in zip(ours.layers, theirs.blocks, strict=True):
        for name, part in attention.named_children():
            layer.get_submodule(f"attention.{names[name]}").load_state_dict(part.state_dict(), strict=True)
        for name, part in {"norm": mlp.ln, "inner": mlp.fc, "outer": mlp.c_proj}.items():
            layer.get_submodule(name).load_state_dict(part.state_dict(), strict=True)
    return ours, theirs


@pytest.mark.parametrize("qk_norm", [False, True])
def test_the_resampler_is_that_of_idefics(qk_norm: bool, parity: Any) -> None:
    ours, theirs = pair(qk_norm=qk_norm)
    context = torch.randn(3, 7, WIDTH)
    with torch.no_grad():
        found, expected = ours(context, torch.ones(3, 7, dtype=torch.bool)), theirs(context)
    parity(REFERENCE).close(f"latents{', normed heads' if qk_norm else ''}", found, expected)


def test_an_image_with_padding_gives_what_that_of_idefics_gives_without(parity: Any) -> None:
    ours, theirs = pair(qk_norm=False)
    context, mask = torch.randn(3, 7, WIDTH), torch.arange(7) < torch.tensor([[7], [4], [1]])
    with torch.no_grad():
        found = ours(context, mask)
        for row, length in enumerate((7, 4, 1)):
            parity(REFERENCE).close("latents with padding", found[row], theirs(context[row : row + 1, :length])[0])


def test_by_default_the_activation_is_flamingos() -> None:
    activation = ACTIVATIONS[ResamplerOptions().activation]
    assert activation(torch.tensor([-2.0, 0.5, 3.0])).tolist() == [0.0, 0.25, 9.0]


# --- the head -------------------------------------------------------------------------------------------------------


def head(*, class_token: bool = True, **more: Any) -> ResamplerFusion:
    towers = {"vision": TowerFacts(VISION, class_token), "text": TowerFacts(TEXT, class_token)}
    built: ResamplerFusion = randomised(build(ResamplerOptions(**{**SIZES, "layers": 2, **more}), **towers))
    return built


def inputs() -> tuple[Features, Features]:
    """Return a vision stream [3, 5, 12] and a text stream [3, 6, 20], both with padding."""
    generator = torch.Generator().manual_seed(2)

    def tokens(count: int, width: int) -> Tensor:
        return torch.randn(3, count, width, generator=generator)

    vision_mask = torch.arange(5) < torch.tensor([[5], [3], [4]])
    text_mask = torch.arange(6) < torch.tensor([[4], [6], [2]])
    return Features(tokens(5, VISION), vision_mask), Features(tokens(6, TEXT), text_mask)


def outputs(fusion: ResamplerFusion, vision: Features, text: Features, asked: frozenset[Output] = EVERY) -> Any:
    with torch.no_grad():
        joint = fusion(vision, text, asked)
    return {"pooled": joint.pooled, "text": None if joint.text is None else joint.text.tokens[joint.text.mask]}


@each_join
@each_token
def test_what_stands_in_the_padding_changes_nothing(join: str, class_token: bool) -> None:
    fusion = head(join=join, class_token=class_token)
    other = tuple(Features(f.tokens.masked_fill(~f.mask.unsqueeze(-1), 99.0), f.mask) for f in inputs())
    torch.testing.assert_close(outputs(fusion, *other), outputs(fusion, *inputs()))


@each_join
def test_the_image_is_seen_by_every_real_token_of_the_text(join: str) -> None:
    fusion, (vision, text) = head(join=join), inputs()
    seen = outputs(fusion, vision, text)["text"]
    other = outputs(fusion, Features(vision.tokens.flip(0), vision.mask.flip(0)), text)["text"]
    moved = (seen - other).abs().amax(-1)
    own = text.mask.nonzero()[:, 0] == 1  # pair 1 keeps its image when the order is reversed
    assert (moved[~own] > 1e-3).all()
    assert (moved[own] < 1e-5).all()


@each_join
@each_token
def test_what_is_asked_for_alone_is_what_it_is_among_all(join: str, class_token: bool) -> None:
    fusion = head(join=join, class_token=class_token)
    whole = outputs(fusion, *inputs())
    for name in ("pooled", "text"):
        alone = outputs(fusion, *inputs(), frozenset({name}))
        torch.testing.assert_close(alone[name], whole[name])
    assert outputs(fusion, *inputs(), frozenset()) == {"pooled": None, "text": None}


@each_join
def test_the_text_sees_as_many_latents_whatever_the_size_of_the_image(join: str) -> None:
    fusion, seen = head(join=join), []
    fusion.resampler.register_forward_hook(lambda module, given, latents: seen.append(latents.shape[1]))
    _, text = inputs()
    for count in (1, 40):
        fusion(Features(torch.randn(3, count, VISION), torch.ones(3, count, dtype=torch.bool)), text, EVERY)
    assert seen == [LATENTS, LATENTS]


@each_join
def test_recomputing_in_the_backward_pass_gives_the_same_gradients(join: str) -> None:
    gradients = []
    for recompute in (False, True):
        fusion = head(join=join, dropout=0.2).train()
        fusion.recompute = recompute
        torch.manual_seed(3)
        joint = fusion(*inputs(), EVERY)
        (joint.pooled.square().sum() + joint.text.tokens.square().sum()).backward()  # type: ignore[union-attr]  # both were asked for
        gradients.append({name: parameter.grad for name, parameter in fusion.named_parameters()})
    torch.testing.assert_close(gradients[1], gradients[0])


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(SpecError, match="5 heads do not divide a width of 64; the nearest number is 4"):
        resolve("tiny-vit + tiny-bert, two-tower, random both, resampler:perceiver-resampler(width=64, heads=5)")


def test_the_recipe_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RENAISSANCE_CACHE", str(tmp_path / "cache"))
    text = (Path(__file__).parents[1] / "README.md").read_text()
    (spec,) = re.findall(r"```text\n(.*?)\n```", text, re.S)
    assert "perceiver-resampler" in str(resolve(spec).spec)
    (recipe,) = re.findall(r"```yaml\n(.*?)```", text, re.S)
    (tmp_path / "recipe.yaml").write_text(recipe)
    run = renaissance.run(tmp_path / "recipe.yaml", out=tmp_path / "run")
    assert {row["task"] for row in run.scores["scores"]} == {"itm"}
    model = renaissance.from_pretrained(tmp_path / "run")
    picture = Image.new("RGB", (32, 32), "red")
    assert model.match([picture], ["a red cup"]).shape == (1,)


def test_a_model_with_it_is_exported_for_any_number_of_pairs(tmp_path: Path) -> None:
    sizes = "layers=1, width=32, heads=2"
    towers = f"tiny-vit({sizes}, image_size=32, patch_size=8) + tiny-bert({sizes})"
    head = "resampler:perceiver-resampler(latents=3, resampler_layers=1, layers=1, width=32, heads=2)"
    model = renaissance.build(f"{towers}, random both, {head}", tasks=["itm"])
    (graph,) = renaissance.export(model, tmp_path / "out", part="match", format="torch-export").graphs
    assert {shapes["pixels"][0] for shapes in graph.compared} == {1, 2, 5}
