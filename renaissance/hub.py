"""Between the Hub and folders: `download` brings a saved model into the cache, `upload` makes one commit of a folder.

Only files that a saved model can hold travel, either way. A download is pinned to a commit, and verified by the
SHA-256 of its manifest. What fails for the moment is tried again; what fails for good is one line with a next step.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

import httpx2
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    RepoFile,
    hf_hub_download,
    is_offline_mode,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from renaissance.durable import sha256_of
from renaissance.errors import HubError, ModelFileError, RenaissanceError
from renaissance.manifest import (
    CONFIG,
    MANIFEST,
    Manifest,
    damaged_files,
    is_model_file,
    is_saved_model,
    read_manifest,
    verify_files,
)
from renaissance.spec import shown

REPO = re.compile(r"[A-Za-z0-9][\w.\-]{0,95}/[A-Za-z0-9_][\w.\-]{0,95}", re.ASCII)
MAIN = "main"

_COMMIT = re.compile(r"[0-9a-f]{40}")
_DELAYS = (0.2, 0.6, 1.8)  # seconds before each further try
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})

CommitOperation: TypeAlias = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Upload:
    """What `upload` left on the Hub; `changed` is False where the commit was there before."""

    url: str
    commit: str
    changed: bool


# --- download -------------------------------------------------------------------------------------------------------


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
        return _Download(api, repo, commit, cache_dir).run()


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


# --- upload ---------------------------------------------------------------------------------------------------------


def upload(
    folder: str | Path,
    repo: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    message: str = "Upload model",
) -> Upload:
    """Make a repository's tree the saved model in `folder`, by one commit, or none where it is the same already.

    The repository, and the branch `revision`, are created where they are not there. Links, hidden files and whatever
    is no part of a saved model stay here; files of the repository that are no part of one stay there.

    Raises:
        ModelFileError: `folder` holds no saved model, or a damaged one.
        HubError: the Hub cannot be reached or refuses, or the repository is public and `private` was asked for.
    """
    check_name(repo)
    folder = Path(folder)
    names = _publishable(folder)
    api = HfApi(token=token, library_name="renaissance")
    with told(repo, revision, api.endpoint), no_progress_bars():
        retried(lambda: api.create_repo(repo, private=private, exist_ok=True))
        if private and not retried(lambda: api.model_info(repo)).private:
            raise HubError(f"'{repo}' exists and is public. Make it private in its settings, or choose another name.")
        if revision not in (None, MAIN):
            retried(lambda: api.create_branch(repo, branch=str(revision), exist_ok=True))
        # a commit whose answer was lost is seen by the next try, which finds nothing left to change
        return retried(lambda: _commit_folder(api, folder, names, repo, revision or MAIN, message))


def _publishable(folder: Path) -> list[str]:
    """Return the files of a saved model that may be published."""
    if not is_saved_model(folder):
        raise ModelFileError(f"{folder} holds no saved model. Save one there first: model.save({str(folder)!r}).")
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    names = sorted({MANIFEST, *manifest.files})
    linked = next((name for name in names if _is_linked(folder, name)), None)
    if linked is not None:
        raise ModelFileError(f"{folder / linked} is a link, and only files are published. Save the model again.")
    return names


def _is_linked(folder: Path, name: str) -> bool:
    return (folder / name).is_symlink() or (folder / name).parent.resolve() != folder.resolve() / Path(name).parent


def _commit_folder(api: HfApi, folder: Path, names: list[str], repo: str, branch: str, message: str) -> Upload:
    """Commit the differences between a folder and the head of a branch, on top of exactly that head."""
    head = api.model_info(repo, revision=branch).sha
    assert head is not None, "the Hub always tells the head of a branch"
    entries = api.list_repo_tree(repo, revision=head, recursive=True)
    there = {entry.path: entry for entry in entries if isinstance(entry, RepoFile) and is_model_file(entry.path)}
    new = [name for name in names if name not in there or not _is_same(folder / name, there[name])]
    gone = sorted(set(there) - set(names))
    url = f"{api.endpoint}/{repo}"
    if not new and not gone:
        return Upload(url, head, changed=False)
    operations: list[CommitOperation] = [
        *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in new),
        *(CommitOperationDelete(path_in_repo=name, is_folder=False) for name in gone),
    ]
    made = api.create_commit(repo, operations, commit_message=message, revision=branch, parent_commit=head)
    return Upload(url, made.oid, changed=True)


def _is_same(path: Path, there: RepoFile) -> bool:
    """Compare a file with the Hub's by the digest that the Hub keeps: SHA-256 of large files, git's of others."""
    if path.stat().st_size != there.size:
        return False
    if there.lfs is not None:
        return sha256_of(path) == there.lfs.sha256
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == there.blob_id


# --- what goes wrong ------------------------------------------------------------------------------------------------


def check_name(repo: str) -> None:
    """Refuse what is no name of a repository.

    Raises:
        HubError: it is not 'organisation/name'.
    """
    if not REPO.fullmatch(repo):
        raise HubError(f"'{shown(repo)}' is no repository of the Hub. Write it as 'organisation/name'.")


def retried(call: Callable[[], T]) -> T:
    """Return what `call` returns; try again after a fault that may pass."""
    for delay in _DELAYS:
        try:
            return call()
        except Exception as error:
            if not _may_pass(_root(error)):
                raise
        time.sleep(delay)
    return call()


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _TRANSIENT
    return isinstance(error, httpx2.TransportError)


def _root(error: BaseException) -> BaseException:
    """Return the fault inside what the client wraps it in: an entry that is not local, a failed upload of a file."""
    while isinstance(error, LocalEntryNotFoundError | RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


@contextlib.contextmanager
def told(repo: str, revision: str | None, endpoint: str) -> Iterator[None]:
    """Turn what the client raises into a `HubError` of one line."""
    try:
        yield
    except RenaissanceError:
        raise
    except (OSError, ValueError, RuntimeError, httpx2.HTTPError) as error:
        raise HubError(_reason(_root(error), repo, revision, endpoint)) from error


def _reason(error: BaseException, repo: str, revision: str | None, endpoint: str) -> str:
    match error:
        case GatedRepoError():
            return f"'{repo}' is gated. Ask for access on {endpoint}/{repo}, then pass the token of that account."
        case RepositoryNotFoundError():
            return (
                f"{endpoint} shows no repository '{repo}' to this token. Check the name; for a private one log in "
                "('hf auth login') or pass token=."
            )
        case RevisionNotFoundError():
            at = f"{endpoint}/{repo}/tree/{MAIN}"
            return f"'{repo}' has no revision '{shown(revision)}'. See its branches and tags at {at}."
        case RemoteEntryNotFoundError():
            return f"'{repo}' lacks a file that its manifest lists. Ask its owner to publish it again."
        case HfHubHTTPError():
            return _status_reason(error.response.status_code, repo, endpoint)
        case LocalEntryNotFoundError() | OfflineModeIsEnabled() | httpx2.TransportError() | ConnectionError():
            return f"{endpoint} cannot be reached. Check the connection, or use the cache: local_files_only=True."
        case OSError() if error.strerror:
            return f"'{repo}' cannot be read or kept here ({error.strerror}). Choose another cache_dir."
        case _:
            reason = " ".join(str(error).split()) or type(error).__name__
            return f"{endpoint} answered for '{repo}' what is not understood ({shown(reason)}). Try again later."


def _status_reason(status: int, repo: str, endpoint: str) -> str:
    match status:
        case 401:
            return f"{endpoint} does not know this token. Log in ('hf auth login'), or pass a valid token=."
        case 403:
            return f"This token may not do that with '{repo}'. Use one with write access, or a name of your own."
        case 409 | 412:
            return f"'{repo}' was changed by someone else meanwhile. Look at their commit, then publish again."
        case _:
            return f"{endpoint} answers with status {status} for '{repo}', after several tries. Try again later."


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Silence the client's bars, unless they are silent already or the environment decides."""
    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
