"""From the Hub into the cache: one commit, its files verified by the SHA-256 of its manifest."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, is_offline_mode, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import RemoteEntryNotFoundError
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # public, and not in its list

from renaissance.errors import HubError, ModelFileError
from renaissance.hub.talking import MAIN, check_name, no_progress_bars, retried, told
from renaissance.manifest import (
    CONFIG,
    MANIFEST,
    Manifest,
    damaged_files,
    is_saved_model,
    read_manifest,
    verify_files,
)
from renaissance.spec import shown

_COMMIT = re.compile(r"[0-9a-f]{40}")


def download(
    repo: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Return the folder of the cache that holds a saved model of the Hub, downloaded where it is not there yet.

    `revision` is a branch, a tag or a commit; a commit that is in the cache makes no request. The files are verified;
    what is damaged in the cache is downloaded once more.

    Raises:
        HubError: there is no such repository, revision or model, or the Hub cannot be reached or refuses.
        ModelFileError: the repository's manifest is damaged, or a file in the cache is and it cannot be fetched again.
    """
    check_name(repo)
    offline = local_files_only or is_offline_mode()
    api = HfApi(token=token, library_name="renaissance")
    with told(repo, revision, api.endpoint), no_progress_bars():
        commit = revision or MAIN
        if not offline:
            commit = retried(lambda: commit_of(api, repo, revision or MAIN, cache_dir))
        cached = _cached(repo, commit, cache_dir)
        if cached is not None:
            folder, manifest = cached
            if offline:
                verify_files(folder, manifest)
                return folder
            if not any(damaged_files(folder, manifest)):
                return folder
        if offline:
            raise HubError(
                f"'{repo}' at '{shown(commit)}' is not in the cache, or not wholly. Load it once with a connection, "
                "without local_files_only and HF_HUB_OFFLINE."
            )
        folder = _Download(api, repo, commit, cache_dir).run()
        _sweep(folder.parent.parent)
        return folder


@dataclass(frozen=True, slots=True)
class _Download:
    """One commit of one repository on its way into the cache."""

    api: HfApi
    repo: str
    commit: str
    cache_dir: str | Path | None

    def run(self) -> Path:
        """Fetch what the manifest lists, verify it, and fetch once more what arrived damaged."""
        folder, manifest = self._manifest(force=False)
        retried(lambda: self._fetch_all(manifest))
        damaged = list(damaged_files(folder, manifest, sha256=True))
        if damaged:
            folder, manifest = self._manifest(force=True)
            for name in damaged:
                self._fetch(name, force=True)
            damaged = list(damaged_files(folder, manifest, sha256=True))
        if damaged:
            raise HubError(
                f"'{damaged[0]}' of '{self.repo}' arrived damaged twice: its SHA-256 is not the manifest's. "
                "Try again later, or ask its owner to publish it again."
            )
        return folder

    def _manifest(self, *, force: bool) -> tuple[Path, Manifest]:
        """Fetch config and manifest; a repository without them is refused before its weights are fetched."""
        try:
            folder = self._fetch(CONFIG, force=force).parent
            self._fetch(MANIFEST, force=force)
        except RemoteEntryNotFoundError:
            raise self._no_model() from None
        try:
            if not is_saved_model(folder):
                raise self._no_model()
            return folder, read_manifest(folder)
        except (HubError, ModelFileError):
            if force:
                raise
        return self._manifest(force=True)  # what cannot be read may have been damaged on its way

    def _no_model(self) -> HubError:
        return HubError(f"'{self.repo}' holds no renaissance model. Check the name, or the revision.")

    def _fetch(self, name: str, *, force: bool) -> Path:
        def fetch() -> str:
            return hf_hub_download(
                self.repo,
                name,
                revision=self.commit,
                cache_dir=self.cache_dir,
                force_download=force,
                token=self.api.token,
                endpoint=self.api.endpoint,
            )

        return Path(retried(fetch))

    def _fetch_all(self, manifest: Manifest) -> None:
        snapshot_download(
            self.repo,
            revision=self.commit,
            cache_dir=self.cache_dir,
            allow_patterns=[MANIFEST, *manifest.files],
            token=self.api.token,
            endpoint=self.api.endpoint,
        )


def _sweep(cached: Path) -> None:
    """Remove what killed processes left of files that a repository's folder of the cache has in whole.

    The client names each try of a download otherwise, and goes on with none of them. Whoever still writes one holds the
    lock of its blob.
    """
    for partial in (cached / "blobs").glob("*.incomplete"):
        blob = partial.name.partition(".")[0]
        lock = cached.parent / ".locks" / cached.name / f"{blob}.lock"
        if (cached / "blobs" / blob).exists() and lock.exists():
            with contextlib.suppress(OSError), WeakFileLock(lock, timeout=0.1):
                partial.unlink()


def commit_of(api: HfApi, repo: str, revision: str, cache_dir: str | Path | None) -> str:
    """Return the commit that a branch, a tag or a commit stands for, and note it in the cache for work offline."""
    if _COMMIT.fullmatch(revision):
        return revision
    api.model_info(repo, revision=revision)  # unlike the next call, it does not fall back on the cache in silence
    commit = api.resolve_revision(repo, revision=revision, cache_dir=cache_dir).resolved
    if not _COMMIT.fullmatch(commit):
        raise HubError(f"{api.endpoint} names no commit of '{repo}'; it does not speak as the Hub does.")
    return commit


def _cached(repo: str, revision: str, cache_dir: str | Path | None) -> tuple[Path, Manifest] | None:
    """Return the folder of a revision in the cache, and its manifest, if all files of that are there."""
    found = try_to_load_from_cache(repo, MANIFEST, cache_dir=cache_dir, revision=revision)
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    try:
        manifest = read_manifest(folder)
    except ModelFileError:
        return None
    return (folder, manifest) if all((folder / name).is_file() for name in manifest.files) else None
