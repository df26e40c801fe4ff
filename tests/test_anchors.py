"""Anchors from the download to the verdict, against a Hub on loopback that has models with random weights."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import constants
from PIL import Image
from transformers import ViltForImageAndTextRetrieval, ViltForImagesAndTextClassification

from renaissance.anchors import Anchor, anchor_names, as_anchor, cost
from renaissance.anchors.running import reproduce
from renaissance.data.prepared import Writer
from renaissance.data.readers.published import LAYOUTS
from renaissance.errors import CapabilityError, DataError, HubError, ModelFileError, ReproductionError, SpecError
from renaissance.toolkit.text import TOKENIZER_FILE, WORDPIECE
from tests.cli.conftest import Cli, cli  # noqa: F401  # a fixture
from tests.hub_server import Blob, HubServer, Repo
from tests.importing import bridgetower_models, clip_models, fused_models
from tests.importing.test_vilt import vilt

REPO = "org/checkpoint"
COUNT = 6
WORDS = ("a red cup", "two cats on a green mat", "a dog", "the cup on the mat", "two dogs", "a green cup", "red cats")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """Point the client at a server on loopback, as HF_ENDPOINT would, with a cache of its own."""
    with HubServer(tokens={"secret": "org"}) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", "no-token-here")
        for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(variable, raising=False)
        yield server


def publish(hub: HubServer, folder: Path, repo: str = REPO, *, private: bool = False) -> str:
    """Make a repository of the files of a folder; return its commit."""
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    hub.repos.setdefault(repo, Repo(repo, private=private))
    blobs = {name: Blob(data, lfs=len(data) > 4096) for name, data in files.items()}
    return hub.repos[repo].commit("main", "as published", blobs).oid


# --- checkpoints with random weights, in the layouts of the released ones -------------------------------------------


def vilt_folder(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    shutil.copy(WORDPIECE / TOKENIZER_FILE, folder / TOKENIZER_FILE)
    return folder


def vilt_nlvr2(folder: Path) -> dict[str, Any]:
    vilt_folder(vilt(ViltForImagesAndTextClassification, num_images=2, modality_type_vocab_size=3), folder)
    return {}


def vilt_retrieval(folder: Path) -> dict[str, Any]:
    vilt_folder(vilt(ViltForImageAndTextRetrieval), folder)
    return {}


def clip(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    clip_models.written(clip_models.clip_model().state_dict(), folder)
    return clip_models.OPTIONS


def blip(folder: Path) -> dict[str, Any]:
    fused_models.blip_folder(fused_models.blip(), folder)
    return {}


def bridgetower(folder: Path) -> dict[str, Any]:
    bridgetower_models.written(bridgetower_models.bridgetower("BridgeTowerForImageAndTextRetrieval"), folder)
    return {}


MAKERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "vilt-nlvr2": vilt_nlvr2,
    "vilt-flickr30k": vilt_retrieval,
    "clip-b32-coco": clip,
    "clip-b32-winoground": clip,
    "blip-itm-coco": blip,
    "bridgetower": bridgetower,
}


# --- small prepared data --------------------------------------------------------------------------------------------


def prepared(layout: str, folder: Path, splits: dict[str, int]) -> Path:
    """Write prepared data of a layout: so many items a split, pictures of noise."""
    noise = np.random.default_rng(0)

    def picture() -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, "PNG")
        return buffer.getvalue()

    with Writer(folder) as writer:
        for split, count in splits.items():
            for number in range(count):
                several = 2 if layout in ("nlvr2", "winoground") else 1
                ids = [f"{split}-{number}-{place}" for place in range(several)]
                for image in ids:
                    writer.image(image, picture(), f"{image}.png")
                texts = [WORDS[number % len(WORDS)]] if layout == "nlvr2" else captions(number)
                label = str(number % 2 == 0) if layout == "nlvr2" else None
                writer.item(split, f"{split}-{number}", images=ids, texts=texts, label=label)
        writer.finish({"layout": layout})
    return folder


def captions(number: int) -> list[str]:
    return [f"{WORDS[number % len(WORDS)]} {word}" for word in ("here", "there")]


def small(name: str, options: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a shipped anchor as plain data: of our repository, with so few items that they can be whole here."""
    plain = as_anchor(name).model_dump(mode="json")
    plain["checkpoint"] |= {"repo": REPO, "revision": "main", "options": {**plain["checkpoint"]["options"], **options}}
    for whole in plain["data"]["splits"].values():
        whole |= {"items": COUNT, "texts": whole["texts"] and 2 * COUNT}
    return {**plain, **changes}


def data_of(plain: dict[str, Any], folder: Path, count: int = COUNT) -> Path:
    return prepared(plain["data"]["layout"], folder, dict.fromkeys(plain["data"]["splits"], count))


@pytest.fixture
def nlvr2(hub: HubServer, tmp_path: Path) -> dict[str, Any]:
    """Return an anchor of NLVR2 whose checkpoint is on the Hub and whose data are in `tmp_path / "data"`."""
    torch.manual_seed(0)
    plain = small("vilt-nlvr2", vilt_nlvr2(tmp_path / "checkpoint"))
    publish(hub, tmp_path / "checkpoint")
    data_of(plain, tmp_path / "data")
    return plain


def written(plain: dict[str, Any], folder: Path) -> str:
    (folder / "anchor.yaml").write_text(yaml.safe_dump(plain))
    return str(folder / "anchor.yaml")


def expecting(plain: dict[str, Any], values: dict[str, float]) -> dict[str, Any]:
    figures = [{**figure, "expected": values[figure["split"]]} for figure in plain["figures"]]
    return {**plain, "figures": figures}


def accuracies(plain: dict[str, Any], data: Path) -> dict[str, float]:
    found = reproduce(Anchor.model_validate(plain), data)
    return {outcome.figure.split: outcome.score.value for outcome in found.outcomes}


# --- from the download to the verdict -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", anchor_names())
def test_each_anchor_runs_on_a_checkpoint_of_its_layout(name: str, hub: HubServer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = small(name, MAKERS[name](tmp_path / "checkpoint"))
    commit = publish(hub, tmp_path / "checkpoint")
    found = reproduce(Anchor.model_validate(plain), data_of(plain, tmp_path / "data"))
    verdicts = {"reported"} if plain["figures"][0]["expected"] is None else {"pass", "FAIL"}
    assert found.fetched.commit == commit
    assert len(found.outcomes) == len(plain["figures"])
    assert {outcome.verdict for outcome in found.outcomes} <= verdicts
    assert found.imported.tensors > 20
    assert (found.passed is None) == (verdicts == {"reported"})


def test_a_figure_that_the_model_gives_passes(nlvr2: dict[str, Any], tmp_path: Path, cli: Cli) -> None:  # noqa: F811
    expected = expecting(nlvr2, accuracies(nlvr2, tmp_path / "data"))
    result = cli("reproduce", written(expected, tmp_path), "--data", str(tmp_path / "data"))
    assert result.code == 0
    assert result.out.count(" pass") == 2
    assert "FAIL" not in result.out


def test_a_figure_that_the_model_does_not_give_fails(nlvr2: dict[str, Any], tmp_path: Path, cli: Cli) -> None:  # noqa: F811
    values = accuracies(nlvr2, tmp_path / "data")
    wrong = expecting(nlvr2, {**values, "test1": abs(values["test1"] - 1.5)})
    result = cli("reproduce", written(wrong, tmp_path), "--data", str(tmp_path / "data"))
    assert result.code == ReproductionError.exit_code
    assert "pass" in result.out
    assert "FAIL" in result.out
    assert f"accuracy on 'test1' is {values['test1']:.2f}, and {abs(values['test1'] - 1.5):g} ± 1 was" in result.err


def test_the_report_says_with_what_it_was_measured(
    nlvr2: dict[str, Any],
    hub: HubServer,
    tmp_path: Path,
    cli: Cli,  # noqa: F811
) -> None:
    result = cli("reproduce", written(nlvr2, tmp_path), "--data", str(tmp_path / "data"), "--json")
    report = result.json()
    assert report["checkpoint"]["commit"] == hub.repos[REPO].branches["main"]
    assert report["checkpoint"]["weights"] == ["model.safetensors"]
    assert report["data"]["splits"]["dev"]["fraction"] == 1.0
    assert {"renaissance", "torch", "transformers"} <= set(report["versions"])
    row = report["figures"][0]
    assert row["measured"]["low"] <= row["measured"]["value"] <= row["measured"]["high"]
    shown = cli("reproduce", written(nlvr2, tmp_path), "--data", str(tmp_path / "data"))
    for told in (report["checkpoint"]["commit"], "torch 2.", f"dev {COUNT} of {COUNT} items (100.0%)", "[", "± "):
        assert told in shown.out + shown.err
    assert "Known to differ: ViLT keeps an image's proportions" in shown.err


def test_the_tolerance_itself_still_passes(nlvr2: dict[str, Any], tmp_path: Path) -> None:
    values = accuracies(nlvr2, tmp_path / "data")
    shifted = {split: value - 1.0 if value > 50 else value + 1.0 for split, value in values.items()}
    assert reproduce(Anchor.model_validate(expecting(nlvr2, shifted)), tmp_path / "data").passed


def test_the_imported_model_can_be_kept(nlvr2: dict[str, Any], tmp_path: Path, cli: Cli) -> None:  # noqa: F811
    cli("reproduce", written(nlvr2, tmp_path), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "kept"))
    again = cli("evaluate", str(tmp_path / "kept"), "--data", str(tmp_path / "data"), "--split", "dev", "--json").json()
    assert accuracies(nlvr2, tmp_path / "data")["dev"] == again["scores"][0]["value"]


# --- the checkpoint -------------------------------------------------------------------------------------------------


def test_the_second_check_runs_offline(
    nlvr2: dict[str, Any], hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = reproduce(Anchor.model_validate(nlvr2), tmp_path / "data")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    second = reproduce(Anchor.model_validate(nlvr2), tmp_path / "data")
    assert len(hub.requests) == asked
    assert (second.fetched, second.outcomes) == (first.fetched, first.outcomes)


def test_offline_without_a_cache_is_an_error(
    nlvr2: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="'org/checkpoint' at 'main' is not in the cache"):
        reproduce(Anchor.model_validate(nlvr2), tmp_path / "data")


def test_another_revision_can_be_measured(nlvr2: dict[str, Any], hub: HubServer, tmp_path: Path) -> None:
    first = hub.repos[REPO].branches["main"]
    (tmp_path / "checkpoint" / "README.md").write_text("newer")
    publish(hub, tmp_path / "checkpoint")
    found = reproduce(Anchor.model_validate(nlvr2), tmp_path / "data", revision=first)
    assert found.fetched.commit == first != hub.repos[REPO].branches["main"]
    with pytest.raises(HubError, match="has no revision 'v9'"):
        reproduce(Anchor.model_validate(nlvr2), tmp_path / "data", revision="v9")


def test_a_missing_repository_is_an_error(nlvr2: dict[str, Any], hub: HubServer, tmp_path: Path, cli: Cli) -> None:  # noqa: F811
    del hub.repos[REPO]
    result = cli("reproduce", written(nlvr2, tmp_path), "--data", str(tmp_path / "data"))
    assert result.code == HubError.exit_code
    assert "shows no repository 'org/checkpoint'" in result.err


def test_a_private_repository_needs_its_token(nlvr2: dict[str, Any], hub: HubServer, tmp_path: Path) -> None:
    hub.repos[REPO].private = True
    with pytest.raises(HubError, match="shows no repository"):
        reproduce(Anchor.model_validate(nlvr2), tmp_path / "data")
    assert reproduce(Anchor.model_validate(nlvr2), tmp_path / "data", token="secret").outcomes


def test_a_fault_that_passes_is_tried_again(nlvr2: dict[str, Any], hub: HubServer, tmp_path: Path) -> None:
    hub.fail("GET .*/tree/", status=503)
    assert reproduce(Anchor.model_validate(nlvr2), tmp_path / "data").outcomes


def pickle_only(hub: HubServer, folder: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    publish(hub, folder)


def test_a_pickled_file_is_read_only_if_that_is_said(
    nlvr2: dict[str, Any],
    hub: HubServer,
    tmp_path: Path,
    cli: Cli,  # noqa: F811
) -> None:
    expected = accuracies(nlvr2, tmp_path / "data")
    pickle_only(hub, tmp_path / "checkpoint")
    hub.requests.clear()
    command = ("reproduce", written(nlvr2, tmp_path), "--data", str(tmp_path / "data"), "--json")
    refused = cli(*command)
    assert refused.code == ModelFileError.exit_code
    assert "has its weights as pytorch_model.bin alone" in refused.err
    assert not hub.asked("pytorch_model.bin")
    report = cli(*command, "--from-pickle").json()
    assert {row["split"]: row["measured"]["value"] for row in report["figures"]} == expected


def test_safetensors_are_taken_where_there_are_both(nlvr2: dict[str, Any], hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "checkpoint" / "pytorch_model.bin").write_bytes(b"\x80 a pickle")
    publish(hub, tmp_path / "checkpoint")
    assert reproduce(Anchor.model_validate(nlvr2), tmp_path / "data", from_pickle=True).fetched.pickled is False
    assert not hub.asked("pytorch_model.bin")


def test_a_repository_without_weights_is_an_error(nlvr2: dict[str, Any], hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "checkpoint" / "model.safetensors").unlink()
    publish(hub, tmp_path / "checkpoint")
    with pytest.raises(ModelFileError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        reproduce(Anchor.model_validate(nlvr2), tmp_path / "data")


def test_tensors_that_the_published_model_does_not_read_are_left_out_and_told(hub: HubServer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = small("bridgetower", bridgetower(tmp_path / "checkpoint"))
    publish(hub, tmp_path / "checkpoint")
    found = reproduce(Anchor.model_validate(plain), data_of(plain, tmp_path / "data"))
    unread = bridgetower_models.unread("BridgeTowerForImageAndTextRetrieval")
    assert sorted(found.imported.left_out) == sorted(unread)
    plain["checkpoint"]["unread"] = []
    with pytest.raises(ModelFileError, match="leave_out"):
        reproduce(Anchor.model_validate(plain), tmp_path / "data")


def test_a_checkpoint_without_the_head_is_an_error(hub: HubServer, tmp_path: Path) -> None:
    plain = small("vilt-nlvr2", {"labels": None})
    vilt_retrieval(tmp_path / "checkpoint")
    publish(hub, tmp_path / "checkpoint")
    with pytest.raises(CapabilityError, match="has heads for itm, and the figure of 'vilt-nlvr2' is measured by"):
        reproduce(Anchor.model_validate(plain), data_of(plain, tmp_path / "data"))


# --- the data -------------------------------------------------------------------------------------------------------


def test_data_of_another_layout_are_refused_before_the_download(
    nlvr2: dict[str, Any],
    hub: HubServer,
    tmp_path: Path,
    cli: Cli,  # noqa: F811
) -> None:
    other = prepared("flickr30k", tmp_path / "other", {"dev": COUNT})
    result = cli("reproduce", written(nlvr2, tmp_path), "--data", str(other))
    assert result.code == DataError.exit_code
    assert "holds 'flickr30k', and 'vilt-nlvr2' is measured on 'nlvr2'. Prepare that (lil.nlp" in result.err
    assert not hub.requests


def test_a_part_of_the_data_gets_no_verdict(
    nlvr2: dict[str, Any],
    hub: HubServer,
    tmp_path: Path,
    cli: Cli,  # noqa: F811
) -> None:
    part = data_of(nlvr2, tmp_path / "part", count=3)
    command = ("reproduce", written(nlvr2, tmp_path), "--data", str(part))
    refused = cli(*command)
    assert refused.code == DataError.exit_code
    assert "has 3 of 6 items (50.0%) of 'dev', so a published figure says nothing of it" in refused.err
    assert not hub.requests
    measured = cli(*command, "--partial")
    assert measured.code == 0
    assert measured.out.count(" partial") == 2
    assert "dev 3 of 6 items (50.0%)" in measured.out
    none = {"expected": None, "tolerance": None, "source": None, "why": "nobody measured it"}
    unknown = {**nlvr2, "figures": [{**nlvr2["figures"][0], **none}, nlvr2["figures"][1]]}
    found = reproduce(Anchor.model_validate(unknown), part, partial=True)
    assert found.passed is None
    assert {outcome.verdict for outcome in found.outcomes} == {"partial"}


def test_data_with_other_texts_are_not_whole(hub: HubServer, tmp_path: Path) -> None:
    plain = small("vilt-flickr30k", {})
    plain["data"]["splits"]["test"]["texts"] = 3 * COUNT
    with pytest.raises(DataError, match=r"6 of 6 items with 12 of 18 texts \(66\.7%\) of 'test'"):
        reproduce(Anchor.model_validate(plain), data_of(plain, tmp_path / "data"))


def test_data_without_a_split_are_refused(hub: HubServer, tmp_path: Path) -> None:
    plain = small("vilt-nlvr2", {})
    data = prepared("nlvr2", tmp_path / "data", {"dev": COUNT})
    with pytest.raises(DataError, match="has no split 'test1'; it has: dev"):
        reproduce(Anchor.model_validate(plain), data)


# --- anchors as data ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", anchor_names())
def test_the_counts_of_an_anchor_are_the_published_ones(name: str) -> None:
    anchor = as_anchor(name)
    layout = LAYOUTS[anchor.data.layout]
    assert anchor.name == name
    for split, whole in anchor.data.splits.items():
        assert (whole.items, whole.texts) == (layout.counts[split], layout.texts.get(split))


def test_the_cost_is_told_of_architecture_and_sizes() -> None:
    costs = {name: cost(as_anchor(name)).pairs for name in anchor_names()}
    assert costs["vilt-nlvr2"] == 2 * (6982 + 6967)
    assert costs["vilt-flickr30k"] == 1000 * 5000  # both recalls come from the same pairs
    assert costs["blip-itm-coco"] == 256 * (5000 + 25_010)
    assert costs["clip-b32-coco"] == costs["clip-b32-winoground"] == 0
    assert costs["bridgetower"] == 4 * 400
    assert cost(as_anchor("clip-b32-coco")).megabytes == 605


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"figures": [{"split": "dev", "task": "nlvr2", "metric": "accuracy", "expected": None}]}, "says 'why'"),
        ({"figures": [{"split": "dev", "task": "nlvr2", "metric": "accuracy", "expected": 5.0}]}, "has a 'tolerance'"),
        ({"figures": []}, "'figures'"),
        ({"data": {"layout": "nlvr2", "splits": {"dev": {"items": 1}}}}, "is of the split 'test1'"),
        ({"data": {"layout": "nlvr", "splits": {"dev": {"items": 1}}}}, "Did you mean 'nlvr2'"),
        ({"checkpoint": {"repo": "a/b", "importer": "wilt"}}, "Did you mean 'vilt'"),
        ({"checkpoint": {"repo": "a/b", "importer": "clip"}}, "import clip: 'model': field required"),
        ({"summry": "x"}, "unknown key 'summry'"),
    ],
)
def test_a_wrong_anchor_is_told_what_is_wrong(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    plain = as_anchor("vilt-nlvr2").model_dump(mode="json")
    with pytest.raises(SpecError, match=f"anchor.yaml: .*{told}"):
        as_anchor(written({**plain, **change}, tmp_path))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"metric": "acuracy"}, r"'nlvr2' gives no score 'acuracy' on 'dev'; it gives: accuracy"),
        ({"task": "retrieval", "options": {"rerank": 4}}, "rerank orders by ITM scores"),
        ({"task": "nope"}, "nope"),
    ],
)
def test_a_figure_that_cannot_be_measured_is_told(
    change: dict[str, Any], told: str, nlvr2: dict[str, Any], tmp_path: Path
) -> None:
    nlvr2["figures"][0] |= change
    with pytest.raises(SpecError, match=told):
        reproduce(Anchor.model_validate(nlvr2), tmp_path / "data")


def test_an_unknown_device_is_refused_before_the_download(
    nlvr2: dict[str, Any], hub: HubServer, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match="no device 'gpu' here"):
        reproduce(Anchor.model_validate(nlvr2), tmp_path / "data", device="gpu")
    assert not hub.requests


def test_the_list_has_each_anchor_with_what_it_takes(cli: Cli) -> None:  # noqa: F811
    shown = cli("reproduce", "--list").out
    assert all(name in shown for name in anchor_names())
    assert "dev accuracy: 75.65 ± 1; test1 accuracy: 76.52 ± 1" in shown
    listed = {anchor["name"]: anchor for anchor in cli("reproduce", "--list", "--json").json()["anchors"]}
    assert set(listed) == set(anchor_names())
    assert listed["vilt-nlvr2"]["cost"] == {"pairs": 27_898, "megabytes": 456}
    assert listed["clip-b32-winoground"]["page"] == "huggingface.co/datasets/facebook/winoground"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["reproduce"], "Say which anchor"),
        (["reproduce", "vilt-nlvr2"], "Say which anchor"),
        (["reproduce", "vilt-nlvr", "--data", "x"], "Did you mean 'vilt-nlvr2'?"),
        (["reproduce", "gone.yaml", "--data", "x"], "'gone.yaml' cannot be read"),
    ],
)
def test_bad_usage_is_told(cli: Cli, arguments: list[str], told: str) -> None:  # noqa: F811
    result = cli(*arguments)
    assert (result.code, result.out) == (2, "")
    assert told in result.err
