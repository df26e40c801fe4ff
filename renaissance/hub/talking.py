"""Talking with the Hub: names, what is tried again, and what is told when it fails."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, and not in its list
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from renaissance.errors import HubError, RenaissanceError
from renaissance.manifest import REPO
from renaissance.spec import shown

MAIN = "main"

_DELAYS = (0.2, 0.6, 1.8)  # seconds before each further try
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})

T = TypeVar("T")


def hub_url(repo: str) -> str:
    """Return the address of a repository."""
    return f"{HfApi().endpoint}/{repo}"


def check_name(repo: str) -> None:
    """Refuse what is no name of a repository.

    Raises:
        HubError: it is not 'organisation/name', or the Hub takes no such name.
    """
    if not REPO.fullmatch(repo):
        raise HubError(f"'{shown(repo)}' is no repository of the Hub. Write it as 'organisation/name'.")
    try:
        validate_repo_id(repo)
    except HFValidationError:
        raise HubError(
            f"The Hub takes no repository called '{shown(repo)}': a name has no '--' or '..' in it, and ends neither "
            "in '-' or '.' nor in '.git'. Choose another."
        ) from None


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
def told(repo: str, revision: str | None, endpoint: str, *, cached: bool = True) -> Iterator[None]:
    """Turn what the client raises into a `HubError` of one line; `cached`: whether the cache may have what is asked."""
    try:
        yield
    except RenaissanceError:
        raise
    except (OSError, ValueError, RuntimeError, httpx2.HTTPError) as error:
        raise HubError(_reason(_root(error), repo, revision, endpoint, cached=cached)) from error


def _reason(error: BaseException, repo: str, revision: str | None, endpoint: str, *, cached: bool) -> str:
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
        case OfflineModeIsEnabled():
            return f"{endpoint} is not asked, as HF_HUB_OFFLINE is set. Unset it."
        case LocalEntryNotFoundError() | httpx2.TransportError() | ConnectionError():
            way_out = ", or use the cache: local_files_only=True" if cached else ""
            return f"{endpoint} cannot be reached. Check the connection{way_out}."
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
