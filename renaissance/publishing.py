"""From a finished run to a repository of the Hub: what travels, and what is refused before a byte of it is sent."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from renaissance.assemble import Assembly
from renaissance.card import card_from, card_of_held, check_beside, check_replaceable, read_sources
from renaissance.container import load, save
from renaissance.durable import write_atomically
from renaissance.errors import NonFiniteError, PublishError
from renaissance.hub import Upload, check_name, hub_url, upload
from renaissance.manifest import (
    CARD,
    EXTRAS,
    MANIFEST,
    SCORES,
    SELFTEST,
    Manifest,
    files_in,
    model_in,
    read_manifest,
    read_object,
    relist,
    verify_files,
)
from renaissance.registry import Registry
from renaissance.saved_config import StoredType, read_config
from renaissance.selftest import check_selftest, unproven

_SHORTEN = (
    "Save the model, run 'renaissance card FOLDER --write --shorten-paths', and push what renaissance.from_pretrained "
    "gives of that folder."
)


class Finished(Protocol):
    """A run: its folder holds the model."""

    @property
    def folder(self) -> Path:
        """Where it is."""
        ...


@dataclass(frozen=True, slots=True)
class Publication:
    """What was published, or would be. files: bytes by name; commit: None after a dry run.

    changed: whether there is a new commit; the same run published twice is one.
    """

    repo: str
    url: str
    commit: str | None
    changed: bool
    files: Mapping[str, int]


def publish(
    run: str | Path | Finished,
    repo: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    trained_only: bool = False,
    dtype: StoredType | None = None,
    dry_run: bool = False,
    message: str = "Publish model",
    registry: Registry | None = None,
) -> Publication:
    """Make the Hub's repository 'organisation/name' the model of a run, with card, scores and ledger, by one commit.

    run: a run, its folder, or a saved model's folder. revision: the branch, made where it is not there. dtype: how
    weights are stored, None for as they are. trained_only: towers that are pretrained and wholly frozen are named, not
    sent. dry_run: send nothing, and return what would be sent.

    Raises:
        PublishError: there are no scores of the model.
        NonFiniteError: a weight is NaN or infinite.
        ModelFileError: there is no saved model, it is damaged, or it fails its self-test.
        CardError: its card, or a file beside it, would tell a secret or a local path; or it was written by hand.
        SpecError: `trained_only`, and no tower is pretrained and wholly frozen.
        HubError: the Hub cannot be reached, or refuses the name, the token, or what would be replaced.
    """
    check_name(repo)
    folder = model_in(Path(run) if isinstance(run, str | Path) else run.folder)
    manifest = read_manifest(folder)
    _check_scores(folder, manifest)
    check_replaceable(folder, manifest.files.get(CARD))
    check_beside(folder)
    sources = read_sources(folder, registry=registry)
    assembly = _proven(folder, manifest, registry)
    with tempfile.TemporaryDirectory() as place:
        staging = Path(place) / "model"
        if not _linked(folder, staging, dtype=dtype, trained_only=trained_only):
            _save_again(assembly, folder, staging, dtype=dtype, trained_only=trained_only)
            sources = replace(sources, config=read_config(staging), unproven=unproven(staging))
        _write_card(staging, card_from(sources, folder, repo=repo))
        files = {name: (staging / name).stat().st_size for name in files_in(staging)}
        if dry_run:
            return Publication(repo, hub_url(repo), None, changed=False, files=files)
        made = upload(staging, repo, private=private, token=token, revision=revision, message=message)
    return Publication(repo, made.url, made.commit, made.changed, files)


def push(
    assembly: Assembly,
    repo: str,
    *,
    private: bool,
    token: str | None,
    revision: str | None,
    message: str,
    dtype: StoredType,
    trained_only: bool,
) -> Upload:
    """Make the Hub's repository 'organisation/name' a model that is in memory, with a card, and without a run's files.

    Raises:
        CardError: its card or its config would tell a secret or a local path.
        HubError, NonFiniteError, SpecError: as for `publish`.
    """
    check_name(repo)
    with tempfile.TemporaryDirectory() as place:
        staging = Path(place) / "model"
        save(assembly, staging, dtype=dtype, trained_only=trained_only)
        check_beside(staging, way_out=_SHORTEN)
        _write_card(staging, card_of_held(assembly, staging, repo=repo))
        return upload(staging, repo, private=private, token=token, revision=revision, message=message)


def _write_card(staging: Path, card: str) -> None:
    """Put the card beside a model that was just saved or verified, and into its manifest."""
    write_atomically(staging / CARD, card)
    relist(staging, CARD)


def _check_scores(folder: Path, manifest: Manifest) -> None:
    """Refuse a model that nobody measured; a file that its manifest does not list would not travel with it.

    Raises:
        PublishError: it has no scores of the trained model, or was measured on what it was trained on.
    """
    scores = read_object(folder / SCORES) if SCORES in manifest.files else {}
    leaks = [one for one in _rows(scores.get("overlap"), "found") if one.get("level") == "leak"]
    if not all(leak.get("waived") for leak in leaks):
        raise PublishError(
            f"{folder} was measured on images that it was trained on, and its recipe does not waive that. Measure it "
            "on others, or name the split in the recipe's evaluation.waive."
        )
    if not any(row.get("model") == "trained" for row in _rows(scores, "scores")):
        raise PublishError(
            f"{folder} has no scores, and nobody could judge it. Train it by a recipe with 'evaluation', whose run "
            "keeps its scores beside the model: renaissance run RECIPE."
        )


def _proven(folder: Path, manifest: Manifest, registry: Registry | None) -> Assembly:
    """Return the model in a folder, verified, finite, and as its self-test says.

    Raises:
        NonFiniteError: a weight is NaN or infinite.
        ModelFileError: the folder is damaged, or the model fails its self-test.
    """
    verify_files(folder, manifest, sha256=True)  # by what those compare who download it
    assembly = load(folder, registry=registry, verify=False)
    for name, tensor in assembly.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise NonFiniteError(f"{folder}: the tensor '{name}' holds NaN or infinity. Train the model anew.")
    check_selftest(assembly, folder)
    return assembly


def _rows(facts: object, key: str) -> list[Mapping[str, Any]]:
    """Return the objects that a file lists under a key, if it has such a list."""
    rows = facts.get(key) if isinstance(facts, Mapping) else None
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


def _linked(folder: Path, staging: Path, *, dtype: StoredType | None, trained_only: bool) -> bool:
    """Put the files of a model and its manifest into a folder, but for the card, if they can be published as they are.

    Return whether they can: they are stored as asked, and have a self-test.
    """
    config = read_config(folder)
    as_asked = dtype in (None, config.dtype) and bool(config.left_out) == trained_only
    if not as_asked or not (folder / SELFTEST).exists():
        return False
    for name in (*read_manifest(folder).files, MANIFEST):
        if name != CARD:
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            _link(folder / name, staging / name)
    return True


def _save_again(
    assembly: Assembly, folder: Path, staging: Path, *, dtype: StoredType | None, trained_only: bool
) -> None:
    """Save the model of `folder`, with what lies beside it there, in another way."""
    kept = {name: (folder / name).read_bytes() for name in sorted(EXTRAS) if (folder / name).is_file()}
    save(assembly, staging, extra=kept, dtype=dtype or read_config(folder).dtype, trained_only=trained_only)


def _link(source: Path, target: Path) -> None:
    """Give a file another name where the file system can, and copy it where not."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
