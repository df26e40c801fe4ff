"""A Hub that wishes harm: names that lead out of the cache, answers that lie, hosts that want a token, installers."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from renaissance.assemble import assemble
from renaissance.container import save
from renaissance.errors import PluginError, RenaissanceError
from renaissance.hub import download, talking, upload
from renaissance.manifest import files_in, write_manifest
from renaissance.pretrained import from_pretrained
from renaissance.registry import Registry
from renaissance.resolve import resolve
from tests.hub_server import Blob, HubServer, use

# huggingface_hub gives its HTTP client large files in a way that the client wants written otherwise
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO, TOKEN = "org/model", "hf_secretofowner"
SPEC = (
    "tiny-vit(width=32, layers=1, heads=2, mlp_width=32) + tiny-bert(width=32, layers=1, heads=2, mlp_width=32), "
    "random both, dual(width=16)"
)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr(talking, "_DELAYS", (0.01,))
    with HubServer(tokens={TOKEN: "org"}) as server:
        use(server, monkeypatch)
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save(assemble(resolve(SPEC, ("itc",), registry=Registry())), folder)
    return folder


def outcome(cache: Path, **given: Any) -> Mapping[str, bytes] | None:
    """Return what was downloaded, None after an error of ours; any other error comes through."""
    try:
        there = download(REPO, cache_dir=cache, **given)
    except RenaissanceError:
        return None
    return {name: (there / name).read_bytes() for name in files_in(there)}


OUT = "../" * 8 + "tmp-escaped"
LIES: Mapping[str, Mapping[str, str]] = {
    "etag": {"ETag": f'"{OUT}"', "X-Linked-Etag": f'"{OUT}"'},
    "absolute etag": {"ETag": '"/tmp-escaped"', "X-Linked-Etag": '"/tmp-escaped"'},
    "commit": {"X-Repo-Commit": OUT},
    "no commit": {"X-Repo-Commit": "main"},
    "shorter": {"Content-Length": "10"},
    "linked size": {"X-Linked-Size": "7"},
    "encoded": {"Content-Encoding": "gzip"},
}


@pytest.mark.parametrize("lie", LIES)
def test_an_answer_that_lies_leads_to_the_right_bytes_or_to_an_error_and_never_out_of_the_cache(
    hub: HubServer, folder: Path, tmp_path: Path, lie: str
) -> None:
    upload(folder, REPO, token=TOKEN)
    hub.forge(r" /org/model/resolve/", headers=LIES[lie])
    cache = tmp_path / "deep" / "in" / "cache"
    found = outcome(cache)
    assert found is None or found == {name: (folder / name).read_bytes() for name in files_in(folder)}
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and cache not in path.parents]
    assert outside == []
    assert not list(cache.rglob("*escaped*")) or found is None


def test_a_bomb_in_place_of_a_file_is_not_kept(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    upload(folder, REPO, token=TOKEN)
    bomb = gzip.compress(bytes(2**24))
    headers = {"Content-Encoding": "gzip"}
    hub.forge(r"GET /org/model/resolve/.*/model.safetensors", headers=headers, body=bomb)
    assert outcome(tmp_path / "cache") is None
    assert all(path.stat().st_size < 2**20 for path in (tmp_path / "cache").rglob("*") if path.is_file())


def test_a_token_does_not_follow_to_another_host(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    upload(folder, REPO, token=TOKEN, private=True)
    with HubServer() as elsewhere:
        other = elsewhere.endpoint.replace("127.0.0.1", "localhost")
        hub.forge(r" /org/model/resolve/", headers={"Location": f"{other}/org/model/x"}, body=b"", status=302)
        assert outcome(tmp_path / "cache", token=TOKEN) is None
        assert elsewhere.requests  # it went there, and without the token:
        assert TOKEN not in str([request.headers for request in elsewhere.requests])


@pytest.mark.parametrize(
    "name", ["../escaped", "/tmp-escaped", ".git/hooks/pre-commit", "a\\..\\b", "x" * 300, "\n.json"]
)
def test_files_that_no_model_has_are_not_fetched_whatever_they_are_called(
    hub: HubServer, folder: Path, tmp_path: Path, name: str
) -> None:
    upload(folder, REPO, token=TOKEN)
    head = hub.repos[REPO].at("main")
    assert head is not None
    hub.repos[REPO].commit("main", "more", {**head.files, name: Blob(b"harm", lfs=False)})
    found = outcome(tmp_path / "cache")
    assert found is None or set(found) == set(files_in(folder))
    assert b"harm" not in [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]


def test_what_is_missing_is_named_and_nothing_is_installed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    monkeypatch.setattr(subprocess.Popen, "__init__", lambda self, *given, **named: started.append(given))
    for number, near in enumerate(("packagd", "exemple", "naflx", "unheard-of")):
        copy = shutil.copytree(folder, tmp_path / str(number))
        config = copy / "config.json"
        config.write_text(config.read_text().replace('"tiny-vit"', f'"{near}:vit"'))
        write_manifest(copy)
        with pytest.raises(PluginError, match=f"pip install renaissance-plugin-{near}$"):
            from_pretrained(copy, registry=Registry())
    assert started == []
