from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file

import renaissance
from renaissance.cli import main
from renaissance.errors import ModelFileError, NonFiniteError, OutputError, SpecError, UnknownComponentError
from renaissance.importing import import_checkpoint
from tests.importing.open_clip_models import CAPTIONS, KINDS, Case, case_of, noise_pictures


@pytest.fixture
def clip(tmp_path: Path) -> Case:
    return case_of("ViT-B-32", tmp_path)


def imported(case: Case, folder: Path, **changes: Any) -> renaissance.pretrained.Model:
    import_checkpoint("open-clip", case.path, folder, **{**case.options, **changes})
    return renaissance.from_pretrained(folder)


def assert_embeds_alike(model: Any, case: Case) -> None:
    pictures = noise_pictures()
    found, (images, texts) = model.embed(pictures, list(CAPTIONS)), case.features(pictures)
    torch.testing.assert_close(found.images, images, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.texts, texts, atol=1e-5, rtol=0)
    assert float(images[0] @ images[1]) < 1 - 1e-3  # features that tell pictures apart


# --- what comes out -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "projection by an MLP"])
def test_an_imported_model_embeds_as_open_clip_does(kind: str, tmp_path: Path) -> None:
    case = case_of(kind, tmp_path)
    assert_embeds_alike(imported(case, tmp_path / "out"), case)


def test_the_scale_of_the_similarities_is_kept(clip: Case, tmp_path: Path) -> None:
    model: Any = imported(clip, tmp_path / "out")
    assert torch.equal(model.tasks["itc"].log_scale, clip.whole.logit_scale)


def test_the_report_says_spec_and_number_of_tensors(clip: Case, tmp_path: Path) -> None:
    done = import_checkpoint("open-clip", clip.path, tmp_path / "out", **clip.options)
    assert done.tensors == len(clip.whole.state_dict())
    assert "dual(width=32)" in done.spec
    assert renaissance.build(done.spec, tasks=("itc",)).spec == renaissance.from_pretrained(done.folder).spec


def test_half_precision_weights_embed_as_they_do_in_open_clip(clip: Case, tmp_path: Path) -> None:
    half = {name: tensor.half() for name, tensor in clip.whole.state_dict().items()}
    clip.write(half)
    clip.whole.load_state_dict(half)
    assert_embeds_alike(imported(clip, tmp_path / "out"), clip)


def test_a_tag_of_weights_decides_the_activation(clip: Case, tmp_path: Path) -> None:
    model = imported(clip, tmp_path / "out", model="ViT-B-32@openai")
    pictures = noise_pictures()
    plain = clip.features(pictures)[0]
    assert not torch.allclose(model.embed(pictures).images, plain, atol=1e-4)
    for block in (*clip.whole.visual.transformer.resblocks, *clip.whole.transformer.resblocks):
        block.mlp.gelu = open_clip.model.QuickGELU()
    assert_embeds_alike(model, clip)


def test_a_tensor_is_left_out_only_by_name(clip: Case, tmp_path: Path) -> None:
    clip.write({**clip.whole.state_dict(), "teacher_scale": torch.tensor(1.0)})
    with pytest.raises(ModelFileError, match="takes the tensor 'teacher_scale'"):
        imported(clip, tmp_path / "out")
    done = import_checkpoint("open-clip", clip.path, tmp_path / "out", **clip.options, leave_out=["teacher_scale"])
    assert done.left_out == ("teacher_scale",)


def test_a_bias_of_the_similarities_brings_the_sigmoid_loss(clip: Case, tmp_path: Path) -> None:
    clip.write({**clip.whole.state_dict(), "logit_bias": torch.tensor([-9.5])})  # older versions stored it as [1]
    model: Any = imported(clip, tmp_path / "out")
    assert model.tasks["itc"].bias.item() == -9.5
    model = imported(clip, tmp_path / "out", leave_out=["logit_bias"])
    assert model.tasks["itc"].bias is None


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["visual.proj", "text_projection", "logit_scale", "visual.conv1.weight", "transformer.resblocks.1.ln_2.bias"],
)
def test_a_missing_tensor_is_named_and_nothing_is_written(name: str, clip: Case, tmp_path: Path) -> None:
    state = dict(clip.whole.state_dict())
    del state[name]
    clip.write(state)
    with pytest.raises(ModelFileError, match=f"lacks the tensor '{name}'"):
        imported(clip, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name", ["visual.head.bias", "text_decoder.weight", "visual.transformer.resblocks.2.ln_1.bias"]
)
def test_a_tensor_too_many_is_named_and_nothing_is_written(name: str, clip: Case, tmp_path: Path) -> None:
    clip.write({**clip.whole.state_dict(), name: torch.ones(2)})
    with pytest.raises(ModelFileError, match=f"takes the tensor '{name}'"):
        imported(clip, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name",
    ["visual.proj", "text_projection", "visual.conv1.weight", "ln_final.bias", "transformer.resblocks.1.ln_2.bias"],
)
def test_a_misshaped_tensor_is_named_and_nothing_is_written(name: str, clip: Case, tmp_path: Path) -> None:
    state = dict(clip.whole.state_dict())
    clip.write({**state, name: torch.cat([state[name], state[name][:1]])})
    with pytest.raises(ModelFileError, match=f"'{name}' has the shape .*, and the model needs"):
        imported(clip, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_architecture_is_refused_with_the_tensor_and_both_shapes(clip: Case, tmp_path: Path) -> None:
    narrow = {"overrides": {**clip.options["text"]["overrides"], "width": 16}}
    with pytest.raises(ModelFileError, match=r"'positional_embedding' has the shape \[77, 32\], .* needs \[77, 16\]"):
        imported(clip, tmp_path / "out", text=narrow)


def test_a_projection_that_dual_cannot_hold_is_refused(tmp_path: Path) -> None:
    case = case_of("projection by an MLP", tmp_path)
    with pytest.raises(ModelFileError, match=r"'visual\.head\.proj\.weight'.*It has 'visual\.head\.mlp\.fc1"):
        imported(case, tmp_path / "out")


def test_weights_that_are_not_finite_are_refused(clip: Case, tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in load_file(clip.path).items()}
    state["ln_final.bias"][0] = float("nan")
    clip.write(state)
    with pytest.raises(NonFiniteError, match=r"ln_final\.bias"):
        imported(clip, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_else_stays_as_it_is(clip: Case, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="holds no model"):
        imported(clip, tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": "ViT-B-33"}, UnknownComponentError, "Did you mean 'ViT-B-32'"),
        ({"text": {}}, SpecError, "embed_dim is 32 for vision and 512 for text"),
        ({"text": {"overrides": {"embed_dim": 32}, "widht": 3}}, SpecError, "'widht'"),
        ({"text": {"overrides": {"widht": 3}}}, SpecError, r"no field 'widht'\. Did you mean 'width'"),
        ({"visoin": {}}, SpecError, "unknown key 'visoin'.* Did you mean 'vision'"),
        ({"model": 3}, SpecError, "'model'"),
    ],
)
def test_wrong_options_are_typed_errors(
    changes: dict[str, Any], error: type[Exception], message: str, clip: Case, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        imported(clip, tmp_path / "out", **changes)


def test_an_unknown_kind_is_told_with_the_nearest(clip: Case, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"'openclip'\. Did you mean 'open-clip'\?"):
        import_checkpoint("openclip", clip.path, tmp_path / "out", **clip.options)


# --- the command ----------------------------------------------------------------------------------------------------


def command(case: Case, out: Path, *more: str) -> list[str]:
    towers = [f"{tower}={json.dumps(case.options[tower])}" for tower in ("vision", "text")]
    sets = [part for tower in towers for part in ("--set", tower)]
    return ["import", "open-clip", str(case.path), "--model", "ViT-B-32", str(out), *sets, *more]


def test_the_command_writes_a_model_that_embeds_as_open_clip_does(clip: Case, tmp_path: Path, capsys: Any) -> None:
    assert main(command(clip, tmp_path / "out", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["tensors"] == len(clip.whole.state_dict())
    assert_embeds_alike(renaissance.from_pretrained(tmp_path / "out"), clip)


def test_the_command_tells_people_what_was_made(clip: Case, tmp_path: Path, capsys: Any) -> None:
    assert main(command(clip, tmp_path / "out")) == 0
    printed = capsys.readouterr().out
    assert str(tmp_path / "out") in printed
    assert "62 used" in printed


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["open-clip", "x.safetensors", "out"], 2, "model"),
        (["open-clp", "x.safetensors", "out", "--model", "ViT-B-32"], 2, "Did you mean 'open-clip'"),
        (["open-clip", "x.safetensors", "out", "--model", "ViT-B-32", "--set", "vision"], 2, "key=value"),
        (["open-clip", "x.safetensors", "out", "--model", "ViT-B-32"], 9, "cannot be read"),
    ],
)
def test_the_command_ends_with_the_code_of_the_fault(
    words: list[str], code: int, message: str, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["import", *words]) == code
    assert message in capsys.readouterr().err


def test_the_command_reads_pickles_only_when_told(clip: Case, tmp_path: Path, capsys: Any) -> None:
    clip.path = tmp_path / "epoch_9.pt"
    torch.save({"epoch": 9, "state_dict": clip.whole.state_dict()}, clip.path)
    assert main(command(clip, tmp_path / "out")) == 9
    assert "--from-pickle" in capsys.readouterr().err
    assert main(command(clip, tmp_path / "out", "--from-pickle")) == 0
    assert_embeds_alike(renaissance.from_pretrained(tmp_path / "out"), clip)
