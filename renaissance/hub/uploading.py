"""From a folder to the Hub: what may travel, what is refused before it does, and one commit."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    RepoFile,
    get_token,
)
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils.sha import git_hash

from renaissance.durable import sha256_of
from renaissance.errors import HubError, ModelFileError
from renaissance.hub.talking import MAIN, check_name, no_progress_bars, retried, told
from renaissance.manifest import CARD, CONFIG, MANIFEST, is_model_file, is_saved_model, read_manifest, verify_files
from renaissance.spec import shown

# files of a repository that say nothing of what else is in it
_NEUTRAL = re.compile(r"\.gitattributes|README\.md|LICEN[CS]E(?:\.md|\.txt)?")

CommitOperation: TypeAlias = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete


@dataclass(frozen=True, slots=True)
class Upload:
    """What `upload` left on the Hub; `changed` is False where the commit was there before."""

    url: str
    commit: str
    changed: bool


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
        HubError: there is no token, or it may not write there; the repository holds something else, or is public and
            `private` was asked for; the Hub cannot be reached or refuses. Before any of these no file was sent.
    """
    check_name(repo)
    folder = Path(folder)
    digests = _publishable(folder)
    api = HfApi(token=token, library_name="renaissance")
    _check_token(api, repo)
    with told(repo, revision, api.endpoint, cached=False), no_progress_bars():
        _check_owner(api, repo)
        retried(lambda: _check_content(api, repo, revision or MAIN))
        retried(lambda: api.create_repo(repo, private=private, exist_ok=True))
        if private and not retried(lambda: api.model_info(repo)).private:
            raise HubError(f"'{repo}' exists and is public. Make it private in its settings, or choose another name.")
        if revision not in (None, MAIN):
            retried(lambda: api.create_branch(repo, branch=str(revision), exist_ok=True))
        # a commit whose answer was lost is seen by the next try, which finds nothing left to change
        return retried(lambda: _commit_folder(api, folder, digests, repo, revision or MAIN, message))


def _publishable(folder: Path) -> dict[str, str | None]:
    """Return the files that are published, those that the manifest lists, each with its SHA-256 where it is known.

    Raises:
        ModelFileError: there is no saved model, or a damaged one, or a link in place of a file.
    """
    if not is_saved_model(folder):
        raise ModelFileError(f"{folder} holds no saved model. Save one there first: model.save({str(folder)!r}).")
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    linked = next((name for name in (MANIFEST, *manifest.files) if _is_linked(folder, name)), None)
    if linked is not None:
        raise ModelFileError(f"{folder / linked} is a link, and only files are published. Save the model again.")
    digests = {name: None if name == CARD else facts.sha256 for name, facts in manifest.files.items()}
    return {**digests, MANIFEST: None}


def _check_token(api: HfApi, repo: str) -> None:
    if api.token is None and get_token() is None:
        raise HubError(
            f"Publishing '{repo}' needs a token with write access. Log in ('hf auth login'), set HF_TOKEN, or pass "
            "token=."
        )


def _check_owner(api: HfApi, repo: str) -> None:
    """Refuse a token that the Hub says may not write to the repository's organisation.

    Raises:
        HubError: it may only read, or is of someone else.
    """
    try:
        who = retried(api.whoami)
    except HfHubHTTPError as error:
        if error.response.status_code != 404:
            raise
        return  # a server that does not tell; it will refuse by itself
    owner, names = repo.partition("/")[0], [str(who["name"])]
    names += [str(org.get("name")) for org in who.get("orgs", []) if org.get("roleInOrg") != "read"]
    if owner.casefold() not in map(str.casefold, names):
        raise HubError(
            f"This token is of '{shown(names[0])}', who may not write to '{owner}'. Use one of a member with write "
            f"access, or a name of your own: '{shown(names[0])}/{repo.partition('/')[2]}'."
        )
    if who.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise HubError(f"This token of '{shown(names[0])}' may only read. Make one with write access, and pass that.")


def _check_content(api: HfApi, repo: str, branch: str) -> None:
    """Refuse a repository that holds something else than a model of ours.

    Raises:
        HubError: naming a file of it.
    """
    try:
        names = _names_at(api, repo, branch)
    except RepositoryNotFoundError:
        return
    others = sorted(name for name in names if not _NEUTRAL.fullmatch(name))
    if not others:
        return
    with tempfile.TemporaryDirectory() as place:
        if CONFIG in others:
            api.hf_hub_download(repo, CONFIG, revision=branch if names[CONFIG] else MAIN, local_dir=place)
        if not is_saved_model(Path(place)):
            raise HubError(
                f"'{repo}' exists and holds something else than a renaissance model ('{shown(others[0])}'). Choose "
                "another name, or empty it first."
            )


def _names_at(api: HfApi, repo: str, branch: str) -> dict[str, bool]:
    """Return the files of a branch, or of the main one (False) where there is no such branch yet."""
    try:
        return dict.fromkeys(api.list_repo_files(repo, revision=branch), True)
    except RevisionNotFoundError:
        return dict.fromkeys(api.list_repo_files(repo, revision=MAIN), False)


def _is_linked(folder: Path, name: str) -> bool:
    return (folder / name).is_symlink() or (folder / name).parent.resolve() != folder.resolve() / Path(name).parent


def _commit_folder(
    api: HfApi, folder: Path, digests: Mapping[str, str | None], repo: str, branch: str, message: str
) -> Upload:
    """Commit the differences between the files of a folder and the head of a branch, on top of exactly that head."""
    head = api.model_info(repo, revision=branch).sha
    assert head is not None, "the Hub always tells the head of a branch"
    entries = api.list_repo_tree(repo, revision=head, recursive=True)
    there = {entry.path: entry for entry in entries if isinstance(entry, RepoFile) and is_model_file(entry.path)}
    new = [
        name
        for name, digest in sorted(digests.items())
        if name not in there or not _is_same(folder / name, digest, there[name])
    ]
    gone = sorted(set(there) - set(digests))
    url = f"{api.endpoint}/{repo}"
    if not new and not gone:
        return Upload(url, head, changed=False)
    operations: list[CommitOperation] = [
        *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in new),
        *(CommitOperationDelete(path_in_repo=name, is_folder=False) for name in gone),
    ]
    made = api.create_commit(repo, operations, commit_message=message, revision=branch, parent_commit=head)
    return Upload(url, made.oid, changed=True)


def _is_same(path: Path, digest: str | None, there: RepoFile) -> bool:
    """Compare a file, and its SHA-256 if known, by the digest that the Hub keeps: SHA-256 of large files, or git's."""
    if path.stat().st_size != there.size:
        return False
    if there.lfs is not None:
        return (digest or sha256_of(path)) == there.lfs.sha256
    return git_hash(path.read_bytes()) == there.blob_id
