"""A checkpoint of the Hub as it was published, into the cache: its weights and the files beside them, of one commit."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, RepoFile, is_offline_mode, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from renaissance.errors import HubError, ModelFileError
from renaissance.hub import check_name, commit_of, no_progress_bars, retried, told
from renaissance.manifest import INDEX, PICKLED, SHARD, WEIGHTS
from renaissance.spec import shown

# what importers read beside the weights: sizes, preprocessing, tokenizer
BESIDE = frozenset(
    {
        "config.json",
        "preprocessor_config.json",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.txt",
        "vocab.json",
        "merges.txt",
    }
)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A checkpoint in the cache; `weights`: its files of weights, `size`: bytes of all that was taken."""

    repo: str
    commit: str
    folder: Path
    weights: tuple[str, ...]
    size: int

    @property
    def pickled(self) -> bool:
        """Whether the weights are a pickled file."""
        return self.weights == (PICKLED,)

    @property
    def path(self) -> Path:
        """What an importer opens: the folder of safetensors, or the pickled file."""
        return self.folder / PICKLED if self.pickled else self.folder


def fetch(
    repo: str,
    revision: str,
    *,
    from_pickle: bool = False,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Fetched:
    """Return a checkpoint of the Hub, downloaded where it is not in the cache: safetensors where there are any.

    A pickled file is taken only if there is nothing else, and `from_pickle` is said. Offline (`local_files_only` or
    HF_HUB_OFFLINE) the cache is read.

    Raises:
        HubError: there is no such repository or revision, or the Hub cannot be reached or refuses.
        ModelFileError: there are no weights that can be read, or a pickled file alone and `from_pickle` was not said.
    """
    check_name(repo)
    if local_files_only or is_offline_mode():
        return _from_cache(repo, revision, cache_dir, from_pickle)
    api = HfApi(token=token, library_name="renaissance")
    bars = contextlib.nullcontext() if sys.stderr.isatty() else no_progress_bars()
    with told(repo, revision, api.endpoint), bars:
        commit = retried(lambda: commit_of(api, repo, revision, cache_dir))
        sizes = retried(lambda: _sizes(api, repo, commit))
        weights = _weights(repo, sizes, from_pickle)
        names = [*weights, *sorted(BESIDE & set(sizes))]
        folder = retried(
            lambda: snapshot_download(
                repo,
                revision=commit,
                cache_dir=cache_dir,
                allow_patterns=names,
                token=api.token,
                endpoint=api.endpoint,
            )
        )
    return Fetched(repo, commit, Path(folder), weights, sum(sizes[name] for name in names))


def _from_cache(repo: str, revision: str, cache_dir: str | Path | None, from_pickle: bool) -> Fetched:
    try:
        folder = Path(snapshot_download(repo, revision=revision, cache_dir=cache_dir, local_files_only=True))
    except LocalEntryNotFoundError:
        raise _not_cached(repo, revision) from None
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    if not {WEIGHTS, INDEX, PICKLED} & set(sizes):
        raise _not_cached(repo, revision)
    weights = _weights(repo, sizes, from_pickle)
    return Fetched(
        repo, folder.name, folder, weights, sum(sizes[name] for name in {*weights, *BESIDE} if name in sizes)
    )


def _not_cached(repo: str, revision: str) -> HubError:
    return HubError(
        f"'{repo}' at '{shown(revision)}' is not in the cache, or not wholly. Run this once with a connection, without "
        "HF_HUB_OFFLINE."
    )


def _sizes(api: HfApi, repo: str, commit: str) -> dict[str, int]:
    """Return name and bytes of each file at the top of a repository."""
    entries = api.list_repo_tree(repo, revision=commit)
    return {entry.path: entry.size for entry in entries if isinstance(entry, RepoFile)}


def _weights(repo: str, names: Mapping[str, int], from_pickle: bool) -> tuple[str, ...]:
    """Return the files of weights to take.

    Raises:
        ModelFileError: there are none, or a pickled file alone that was not asked for.
    """
    if WEIGHTS in names:
        return (WEIGHTS,)
    if INDEX in names:
        return (INDEX, *sorted(name for name in names if SHARD.fullmatch(name)))
    if PICKLED not in names:
        raise ModelFileError(
            f"'{repo}' has neither {WEIGHTS} nor {PICKLED}. Check the name, or give another --revision."
        )
    if not from_pickle:
        raise ModelFileError(
            f"'{repo}' has its weights as {PICKLED} alone, a pickled file, which can run code when it is read. Read "
            "nothing but its tensors, with --from-pickle; or give a --revision that has safetensors, such as a pull "
            "request's 'refs/pr/1'."
        )
    return (PICKLED,)
