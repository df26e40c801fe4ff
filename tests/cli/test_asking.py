"""`embed`, `rank` and `export`: what they print and write is what the model answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image
from safetensors.numpy import load_file

from renaissance.hub import upload
from renaissance.manifest import write_manifest
from renaissance.pretrained import Model, build
from renaissance.registry import Registry
from tests.hub_server import HubServer, use

if TYPE_CHECKING:
    from tests.cli.conftest import AddPlugin, Cli

SPEC = (
    "tiny-vit(width=32, layers=1, heads=2, mlp_width=32) + tiny-bert(width=32, layers=1, heads=2, mlp_width=32), "
    "random both, lxmert(layers=1, width=32, heads=2)"
)
TEXTS = ["a red cup", "two dogs", "rain"]
PLUGIN = """
from renaissance.api import hookimpl
from renaissance.builtin.fusion_entries import FUSION_HEADS

@hookimpl
def register_fusion_heads():
    return [entry for entry in FUSION_HEADS if entry.name == "lxmert"]
"""


@pytest.fixture(scope="module")
def model() -> Model:
    return build(SPEC, tasks=("itc", "itm"), registry=Registry()).eval()


@pytest.fixture
def place(model: Model, tmp_path: Path) -> str:
    model.save(tmp_path / "model")
    (tmp_path / "photos").mkdir()
    for number in range(3):
        picture = Image.linear_gradient("L").convert("RGB").rotate(70 * number)
        picture.save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n\n")
    return str(tmp_path / "model")


@pytest.mark.parametrize("name", ["vectors.npz", "vectors.safetensors"])
def test_embed_writes_the_vectors_of_a_folder_of_pictures_and_of_a_file_of_texts(
    cli: Cli, model: Model, place: str, tmp_path: Path, name: str
) -> None:
    out = tmp_path / name
    given = ("--image", str(tmp_path / "photos"), "--texts", str(tmp_path / "texts.txt"), "--out", str(out))
    told = cli("embed", place, *given, "--json").json()
    assert told["shapes"] == {"images": [3, 256], "texts": [3, 256]}
    assert told["texts"] == TEXTS
    written = dict(np.load(out)) if out.suffix == ".npz" else load_file(out)
    expected = model.embed(sorted((tmp_path / "photos").glob("*.png")), TEXTS)
    for found, vectors in zip((written["images"], written["texts"]), expected, strict=True):
        assert vectors is not None
        np.testing.assert_allclose(found, vectors, atol=1e-6)


def test_rank_prints_the_pictures_of_a_text_in_order(cli: Cli, model: Model, place: str, tmp_path: Path) -> None:
    pictures = sorted((tmp_path / "photos").glob("*.png"))
    expected = model.rank(pictures, "rain", top=2, rerank=1)
    given = (place, "--text", "rain", "--image", str(tmp_path / "photos"), "--top", "2", "--rerank", "1")
    rows = cli("rank", *given, "--json").json()["ranking"]
    assert [row["candidate"] for row in rows] == [str(pictures[index]) for index in expected.indices]
    assert [row["probability"] is None for row in rows] == [False, True]
    assert [line.split()[0] for line in cli("rank", *given).out.splitlines()[-2:]] == [row["candidate"] for row in rows]


def test_rank_needs_one_query_and_embed_a_type_of_file(cli: Cli, place: str, tmp_path: Path) -> None:
    several = ("--image", str(tmp_path / "photos"), "--texts", str(tmp_path / "texts.txt"))
    for command, told in (
        (("rank", place, *several), "3 pictures and 3 texts. Give one of either."),
        (("embed", place, *several, "--out", str(tmp_path / "vectors.csv")), "Use .safetensors or .npz."),
        (("embed", place, "--out", str(tmp_path / "vectors.npz")), "nothing to embed"),
    ):
        result = cli(*command)
        assert (result.code, result.out) == (2, "")
        assert told in result.err


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub's HTTP client
def test_a_model_of_the_hub_with_a_plugin_is_asked_once_that_is_trusted(
    cli: Cli, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, add_plugin: AddPlugin
) -> None:
    config = Path(place) / "config.json"
    config.write_text(config.read_text().replace('"lxmert"', '"xyz:lxmert"'))
    write_manifest(Path(place))
    add_plugin("xyz", PLUGIN)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    vectors, pair = str(tmp_path / "vectors.npz"), ("--text", "rain", "--image", str(tmp_path / "photos" / "0.png"))
    commands = (
        ("embed", "org/name", *pair, "--out", vectors),
        ("rank", "org/name", *pair),
        ("export", "org/name", str(tmp_path / "exported"), "--part", "text", "--format", "torch-export"),
        ("explain", "org/name", *pair, "--out", str(tmp_path / "why"), "--steps", "1"),
    )
    with HubServer(tokens={"secret": "org"}) as hub:
        use(hub, monkeypatch)
        upload(place, "org/name", token="secret", revision="mine")
        for command in commands:
            refused = cli(*command, "--revision", "mine")
            assert (refused.code, refused.out) == (6, "")
            assert "pass trust=['xyz'], or --trust xyz to a command" in refused.err
            assert cli(*command, "--revision", "mine", "--trust", "xyz==1.2").code == 0


def test_export_prints_each_file_and_how_far_it_is_from_the_model(cli: Cli, place: str, tmp_path: Path) -> None:
    out = str(tmp_path / "exported")
    told = cli("export", place, out, "--part", "vision", "--format", "torch-export", "--json").json()
    assert told["folder"] == out
    assert [graph["file"] for graph in told["graphs"]] == ["vision.pt2"]
    assert told["graphs"][0]["difference"] <= 1e-4
    again = cli("export", place, out)
    assert again.code == 8
    assert "exists" in again.err
