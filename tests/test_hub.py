from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.utils.tqdm import are_progress_bars_disabled

from renaissance.assemble import assemble
from renaissance.container import load, save
from renaissance.errors import HubError, ModelFileError
from renaissance.hub import download, talking, upload
from renaissance.manifest import files_in, write_manifest
from renaissance.registry import Registry
from renaissance.resolve import resolve
from tests.hub_server import HubServer, use

# huggingface_hub gives its HTTP client large files in a way that the client wants written otherwise
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "org/model"
TOKEN = "secret-of-org"
OTHER = "secret-of-else"
READER = "secret-to-read"
MEMBER = "secret-of-member"
SPEC = (
    "tiny-vit(width=32, layers=1, heads=2, mlp_width=32) + tiny-bert(width=32, layers=1, heads=2, mlp_width=32), "
    "random both, dual(width=16)"
)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer(tokens={TOKEN: "org", OTHER: "else", READER: "org", MEMBER: "member"}) as server:
        use(server, monkeypatch)
        yield server


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save(assemble(resolve(SPEC, ("itc",), registry=Registry())), folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def change(folder: Path, text: str = "# Another card\n") -> None:
    (folder / "README.md").write_text(text)
    write_manifest(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_in(folder)}


# --- there and back ---------------------------------------------------------------------------------------------------


def test_what_is_downloaded_is_what_was_uploaded(hub: HubServer, folder: Path, cache: Path) -> None:
    made = upload(folder, REPO, token=TOKEN)
    assert made.changed
    there = download(REPO, cache_dir=cache)
    assert contents(there) == contents(folder)
    assert there.name == made.commit
    load(there, registry=Registry())


def test_weights_travel_as_large_files_and_a_model_is_one_commit(hub: HubServer, folder: Path) -> None:
    upload(folder, REPO, token=TOKEN)
    repo = hub.repos[REPO]
    head = repo.at("main")
    assert head is not None
    assert head.files["model.safetensors"].lfs
    assert not head.files["config.json"].lfs
    assert len(repo.commits) == 2  # the Hub's own first one, and ours


def test_the_same_model_makes_no_second_commit(hub: HubServer, folder: Path) -> None:
    first = upload(folder, REPO, token=TOKEN)
    second = upload(folder, REPO, token=TOKEN)
    assert second.commit == first.commit
    assert not second.changed
    assert len(hub.asked("POST .*/commit/")) == 1


def test_a_second_upload_removes_files_that_the_model_no_longer_has_and_no_others(hub: HubServer, folder: Path) -> None:
    (folder / "scores.json").write_text("{}")
    write_manifest(folder)
    upload(folder, REPO, token=TOKEN)
    (folder / "scores.json").unlink()
    write_manifest(folder)
    upload(folder, REPO, token=TOKEN)
    head = hub.repos[REPO].at("main")
    assert head is not None
    assert set(head.files) == {".gitattributes", *files_in(folder)}


def test_branches_and_tags_and_commits_are_revisions(hub: HubServer, folder: Path, cache: Path) -> None:
    first = upload(folder, REPO, token=TOKEN)
    HfApi(endpoint=hub.endpoint, token=TOKEN).create_tag(REPO, tag="v1")
    change(folder)
    second = upload(folder, REPO, token=TOKEN, revision="next")
    found = {name: download(REPO, revision=name, cache_dir=cache).name for name in ("main", "v1", "next", first.commit)}
    assert found == {"main": first.commit, "v1": first.commit, "next": second.commit, first.commit: first.commit}


def test_a_pinned_commit_in_the_cache_makes_no_request(hub: HubServer, folder: Path, cache: Path) -> None:
    made = upload(folder, REPO, token=TOKEN)
    download(REPO, cache_dir=cache)
    hub.requests.clear()
    download(REPO, revision=made.commit, cache_dir=cache)
    download(REPO, local_files_only=True, cache_dir=cache)
    assert hub.requests == []


def test_offline_by_the_environment_uses_the_cache(
    hub: HubServer, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(folder, REPO, token=TOKEN)
    online = download(REPO, cache_dir=cache)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert download(REPO, cache_dir=cache) == online


def test_the_cache_follows_a_branch_that_moved(hub: HubServer, folder: Path, cache: Path) -> None:
    upload(folder, REPO, token=TOKEN)
    download(REPO, cache_dir=cache)
    change(folder)
    made = upload(folder, REPO, token=TOKEN)
    assert download(REPO, cache_dir=cache).name == made.commit


# --- who may ----------------------------------------------------------------------------------------------------------


def test_a_private_repository_needs_its_token(hub: HubServer, folder: Path, cache: Path) -> None:
    upload(folder, REPO, private=True, token=TOKEN)
    assert hub.repos[REPO].private
    for token in (None, OTHER):
        with pytest.raises(HubError, match=r"no repository 'org/model' to this token.*hf auth login"):
            download(REPO, token=token, cache_dir=cache)
    download(REPO, token=TOKEN, cache_dir=cache)


def test_a_private_model_is_never_put_into_a_public_repository(hub: HubServer, folder: Path) -> None:
    upload(folder, REPO, token=TOKEN)
    change(folder)
    with pytest.raises(HubError, match="exists and is public"):
        upload(folder, REPO, private=True, token=TOKEN)
    assert len(hub.asked("POST .*/commit/")) == 1


@pytest.mark.parametrize(
    ("token", "told", "asked"),
    [
        (None, r"needs a token with write access.*hf auth login", []),
        ("unknown", "does not know this token", ["GET /api/whoami-v2"]),
        (OTHER, "is of 'else', who may not write to 'org'.*'else/model'", ["GET /api/whoami-v2"]),
        (READER, "may only read", ["GET /api/whoami-v2"]),
        (MEMBER, "who may not write to 'org'", ["GET /api/whoami-v2"]),
    ],
)
def test_an_upload_without_the_right_is_refused_before_anything_is_sent(
    hub: HubServer, folder: Path, token: str | None, told: str, asked: list[str]
) -> None:
    hub.readers |= {READER}
    hub.organisations["member"] = {"org": "read", "else": "write"}
    with pytest.raises(HubError, match=told) as raised:
        upload(folder, REPO, token=token)
    assert "\n" not in str(raised.value)
    assert list(map(str, hub.requests)) == asked
    assert hub.repos == {}


def test_a_member_who_may_write_publishes_for_the_organisation(hub: HubServer, folder: Path) -> None:
    hub.organisations["member"] = {"org": "write"}
    assert upload(folder, REPO, token=MEMBER).changed


def test_a_server_that_tells_no_names_decides_by_itself(hub: HubServer, folder: Path) -> None:
    hub.fail("GET .*/whoami-v2", status=404, times=2)
    with pytest.raises(HubError, match="may not do that"):
        upload(folder, REPO, token=OTHER)
    assert upload(folder, REPO, token=TOKEN).changed


@pytest.mark.parametrize("name", ["a--b", "a..b", "name-", "name.", "name.git"])
def test_a_name_that_the_hub_takes_from_nobody_is_refused_without_asking(
    hub: HubServer, folder: Path, name: str
) -> None:
    for call in (lambda: upload(folder, f"org/{name}", token=TOKEN), lambda: download(f"org/{name}")):
        with pytest.raises(HubError, match="The Hub takes no repository called"):
            call()
    assert hub.requests == []


@pytest.mark.parametrize("name", ["config.json", "pytorch_model.bin", "data/words.txt"])
def test_a_repository_with_something_else_is_left_as_it_is(hub: HubServer, folder: Path, name: str) -> None:
    api = HfApi(endpoint=hub.endpoint, token=TOKEN)
    api.create_repo(REPO)
    api.upload_file(path_or_fileobj=b'{"model_type": "bert"}', path_in_repo=name, repo_id=REPO)
    hub.requests.clear()
    for revision in (None, "next"):
        with pytest.raises(HubError, match=f"holds something else than a renaissance model \\('{name}'\\)"):
            upload(folder, REPO, token=TOKEN, revision=revision)
    assert {request.method for request in hub.requests} <= {"GET", "HEAD"}
    assert set(hub.repos[REPO].branches) == {"main"}


def test_a_repository_with_a_licence_and_a_readme_alone_is_filled(hub: HubServer, folder: Path) -> None:
    api = HfApi(endpoint=hub.endpoint, token=TOKEN)
    api.create_repo(REPO)
    for name in ("LICENSE", "README.md"):
        api.upload_file(path_or_fileobj=b"mine", path_in_repo=name, repo_id=REPO)
    assert upload(folder, REPO, token=TOKEN).changed


def test_no_error_shows_a_token(hub: HubServer, folder: Path, cache: Path) -> None:
    with pytest.raises(HubError) as first:
        upload(folder, REPO, token=OTHER)
    with pytest.raises(HubError) as second:
        download("org/none", token=OTHER, cache_dir=cache)
    assert OTHER not in f"{first.value} {second.value}"


# --- what is not there ------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_said_in_one_line(hub: HubServer, folder: Path, cache: Path) -> None:
    upload(folder, REPO, token=TOKEN)
    HfApi(endpoint=hub.endpoint, token=TOKEN).create_repo("org/empty")
    for repo, revision, told in (
        ("org/none", None, "no repository 'org/none'"),
        (REPO, "v9", "no revision 'v9'"),
        (REPO, "0" * 40, "no revision '0000"),
        ("org/empty", None, "holds no renaissance model"),
        ("model", None, "Write it as 'organisation/name'"),
        ("../x", None, "Write it as 'organisation/name'"),
    ):
        with pytest.raises(HubError, match=told) as raised:
            download(repo, revision=revision, cache_dir=cache)
        assert "\n" not in str(raised.value)


def test_another_librarys_repository_is_refused_before_its_weights_are_fetched(
    hub: HubServer, folder: Path, cache: Path
) -> None:
    api = HfApi(endpoint=hub.endpoint, token=TOKEN)
    api.create_repo(REPO)
    for name, data in (("config.json", b"{}"), ("manifest.json", b"{}"), ("model.safetensors", bytes(9))):
        api.upload_file(path_or_fileobj=data, path_in_repo=name, repo_id=REPO)
    with pytest.raises(HubError, match="holds no renaissance model"):
        download(REPO, cache_dir=cache)
    assert not hub.asked("resolve/.*/model.safetensors")


def test_a_hub_out_of_reach_names_the_cache_as_a_way(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer() as gone:
        use(gone, monkeypatch)
    monkeypatch.setattr(talking, "_DELAYS", ())
    with pytest.raises(HubError, match=r"cannot be reached.*local_files_only=True"):
        download(REPO, cache_dir=cache)
    with pytest.raises(HubError, match="is not in the cache"):
        download(REPO, cache_dir=cache, local_files_only=True)


def test_who_publishes_is_sent_to_no_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer() as gone:
        use(gone, monkeypatch)
    monkeypatch.setattr(talking, "_DELAYS", ())
    with pytest.raises(HubError, match=r"cannot be reached\. Check the connection\.$"):
        upload(folder, REPO, token=TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"HF_HUB_OFFLINE is set\. Unset it\.$"):
        upload(folder, REPO, token=TOKEN)


# --- faults on the way ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", ["GET .*/revision/", "GET .*/tree/", "HEAD .*/config.json", "GET .*/config.json"])
@pytest.mark.parametrize("status", [500, 503])
def test_a_download_outlives_a_fault_that_passes(
    hub: HubServer, folder: Path, cache: Path, request_: str, status: int
) -> None:
    upload(folder, REPO, token=TOKEN)
    hub.fail(request_, status=status)
    assert contents(download(REPO, cache_dir=cache)) == contents(folder)


@pytest.mark.parametrize(
    "request_", ["POST .*/create", "POST .*/preupload/", "POST .*/batch", "PUT ", "POST .*/commit/"]
)
def test_an_upload_outlives_a_fault_that_passes_and_makes_one_commit(
    hub: HubServer, folder: Path, request_: str
) -> None:
    hub.fail(request_, status=503)
    upload(folder, REPO, token=TOKEN)
    head = hub.repos[REPO].at("main")
    assert head is not None
    assert {name: head.files[name].data for name in files_in(folder)} == contents(folder)
    assert len(hub.repos[REPO].commits) == 2


def test_a_fault_that_stays_is_told_with_its_status(
    hub: HubServer, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talking, "_DELAYS", (0.01, 0.01))
    upload(folder, REPO, token=TOKEN)
    hub.fail("GET .*/revision/", status=500, times=99)
    with pytest.raises(HubError, match="answers with status 500"):
        download(REPO, cache_dir=cache)


def test_a_download_that_is_cut_is_completed(hub: HubServer, folder: Path, cache: Path) -> None:
    upload(folder, REPO, token=TOKEN)
    hub.cut("GET .*/model.safetensors")
    there = download(REPO, cache_dir=cache)
    assert contents(there) == contents(folder)
    assert len(hub.asked("GET .*/model.safetensors")) == 2
    assert not list(cache.rglob("*.incomplete"))


def test_a_download_whose_process_is_killed_is_completed_by_the_next_one(
    hub: HubServer, folder: Path, cache: Path
) -> None:
    upload(folder, REPO, token=TOKEN)
    hub.hold("GET .*/model.safetensors")
    code = f"from renaissance.hub import download; download({REPO!r}, cache_dir={str(cache)!r})"
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    child = subprocess.Popen([sys.executable, "-c", code], env=environment)
    try:
        assert hub.held.wait(300)
    finally:
        child.kill()
        child.wait()
        hub.released.set()
    with pytest.raises(HubError, match="not in the cache, or not wholly"):
        download(REPO, cache_dir=cache, local_files_only=True)
    assert contents(download(REPO, cache_dir=cache)) == contents(folder)
    assert not list(cache.rglob("*.incomplete"))


def test_an_interrupted_download_does_not_fetch_again_what_it_has(hub: HubServer, folder: Path, cache: Path) -> None:
    upload(folder, REPO, token=TOKEN)
    hub.fail("GET .*/model.safetensors", status=404, times=1)
    with pytest.raises(HubError):
        download(REPO, cache_dir=cache)
    fetched = len(hub.asked("GET .*/config.json"))
    assert contents(download(REPO, cache_dir=cache)) == contents(folder)
    assert len(hub.asked("GET .*/config.json")) == fetched


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "text/tokenizer.json"])
def test_a_wrong_bit_on_the_way_is_fetched_once_more(hub: HubServer, folder: Path, cache: Path, name: str) -> None:
    upload(folder, REPO, token=TOKEN)
    hub.corrupt(f"/{name}")
    assert contents(download(REPO, cache_dir=cache)) == contents(folder)


def test_a_body_that_is_wrong_twice_is_an_error(hub: HubServer, folder: Path, cache: Path) -> None:
    upload(folder, REPO, token=TOKEN)
    hub.corrupt("/model.safetensors", times=2)
    with pytest.raises(HubError, match=r"'model\.safetensors' of 'org/model' arrived damaged twice"):
        download(REPO, cache_dir=cache)


def test_a_damaged_copy_in_the_cache_is_fetched_once_more(hub: HubServer, folder: Path, cache: Path) -> None:
    upload(folder, REPO, token=TOKEN)
    blob = (download(REPO, cache_dir=cache) / "model.safetensors").resolve()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    with pytest.raises(ModelFileError, match=r"model\.safetensors.*must be deleted first"):
        download(REPO, cache_dir=cache, local_files_only=True)
    load(download(REPO, cache_dir=cache), registry=Registry())


# --- what travels -----------------------------------------------------------------------------------------------------


def test_only_files_of_a_model_are_uploaded(hub: HubServer, folder: Path) -> None:
    expected = set(files_in(folder))
    for decoy in (".env", ".git/config", "weights.bin", "training_args.bin", "core", "notes.ipynb", "x/config.json"):
        (folder / decoy).parent.mkdir(exist_ok=True)
        (folder / decoy).write_text("secret")
    (folder / "ledger.json").symlink_to("/etc/hostname")
    (folder / "vision" / "linked.pt").symlink_to("/etc/hostname")
    with pytest.raises(ModelFileError, match="manifest does not list"):
        upload(folder, REPO, token=TOKEN)
    (folder / "vision" / "linked.pt").unlink()
    upload(folder, REPO, token=TOKEN)
    head = hub.repos[REPO].at("main")
    assert head is not None
    assert set(head.files) - {".gitattributes"} == expected


@pytest.mark.parametrize("name", ["config.json", "text"])
def test_a_link_in_place_of_a_file_is_not_followed(hub: HubServer, folder: Path, name: str) -> None:
    (folder / name).rename(folder.parent / "elsewhere")
    (folder / name).symlink_to(folder.parent / "elsewhere")
    with pytest.raises(ModelFileError, match="is a link"):
        upload(folder, REPO, token=TOKEN)
    assert hub.requests == []


def test_a_damaged_model_is_not_published(hub: HubServer, folder: Path) -> None:
    (folder / "config.json").write_bytes((folder / "config.json").read_bytes() + b"\n")
    with pytest.raises(ModelFileError, match=r"config\.json"):
        upload(folder, REPO, token=TOKEN)
    assert hub.requests == []


def test_pickles_of_a_repository_stay_there(hub: HubServer, folder: Path, cache: Path) -> None:
    upload(folder, REPO, token=TOKEN)
    api = HfApi(endpoint=hub.endpoint, token=TOKEN)
    api.upload_file(path_or_fileobj=b"pickle", path_in_repo="pytorch_model.bin", repo_id=REPO)
    assert "pytorch_model.bin" not in files_in(download(REPO, cache_dir=cache))
    assert not hub.asked("resolve/.*bin")


def test_two_publishers_do_not_overwrite_each_other(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(folder, REPO, token=TOKEN)
    change(folder)
    hub.fail("POST .*/commit/", status=412)
    with pytest.raises(HubError, match="was changed by someone else"):
        upload(folder, REPO, token=TOKEN)


@pytest.mark.parametrize(
    "request_", ["POST .*/preupload/", "POST .*/info/lfs/objects/batch", "PUT .*/_lfs/", "POST .*/commit/"]
)
def test_a_publisher_that_fails_on_the_way_leaves_the_old_model_and_the_next_one_ends_in_one_commit(
    hub: HubServer, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, request_: str
) -> None:
    monkeypatch.setattr(talking, "_DELAYS", ())
    first = upload(folder, REPO, token=TOKEN)
    old = contents(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    write_manifest(folder)
    hub.fail(request_, status=400, times=99)
    with pytest.raises(HubError):
        upload(folder, REPO, token=TOKEN)
    assert hub.repos[REPO].branches["main"] == first.commit
    assert contents(download(REPO, cache_dir=cache)) == old
    hub.faults.clear()
    upload(folder, REPO, token=TOKEN)
    assert len(hub.repos[REPO].commits) == 3
    assert contents(download(REPO, cache_dir=cache)) == contents(folder)


def test_of_many_publishers_at_once_one_wins_and_the_others_are_told(
    hub: HubServer, folder: Path, tmp_path: Path, cache: Path
) -> None:
    upload(folder, REPO, token=TOKEN)
    folders = []
    for number in range(4):
        folders.append(tmp_path / f"model{number}")
        shutil.copytree(folder, folders[-1])
        change(folders[-1], f"# Card {number}\n")
    barrier = threading.Barrier(len(folders))

    refused: list[str] = []

    def publish(own: Path) -> str | None:
        barrier.wait()
        try:
            return upload(own, REPO, token=TOKEN).commit
        except HubError as error:
            refused.append(str(error))
            return None

    with ThreadPoolExecutor(len(folders)) as pool:
        made = list(pool.map(publish, folders))
    commits = [commit for commit in made if commit is not None]
    assert commits
    assert all("was changed by someone else" in told for told in refused)
    assert len(hub.repos[REPO].commits) == 2 + len(commits)
    last = folders[made.index(hub.repos[REPO].branches["main"])]
    assert contents(download(REPO, cache_dir=cache)) == contents(last)


def test_a_commit_is_never_another_ones_though_its_name_was_taken_over(
    hub: HubServer, folder: Path, cache: Path, tmp_path: Path
) -> None:
    made, old = upload(folder, REPO, token=TOKEN), contents(folder)
    download(REPO, revision=made.commit, cache_dir=cache)
    del hub.repos[REPO]
    change(folder)
    upload(folder, REPO, token=TOKEN)
    assert contents(download(REPO, revision=made.commit, cache_dir=cache)) == old
    with pytest.raises(HubError, match="has no revision"):
        download(REPO, revision=made.commit, cache_dir=tmp_path / "fresh")


def test_the_clients_progress_bars_are_silent_and_come_back(
    hub: HubServer, folder: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = are_progress_bars_disabled()
    upload(folder, REPO, token=TOKEN)
    download(REPO, cache_dir=cache)
    assert are_progress_bars_disabled() == before
    assert capfd.readouterr() == ("", "")


# --- the server itself, with the client alone -------------------------------------------------------------------------


def test_the_server_speaks_as_the_client_expects(hub: HubServer, tmp_path: Path) -> None:
    api = HfApi(endpoint=hub.endpoint, token=TOKEN)
    assert api.whoami()["name"] == "org"
    assert api.create_repo(REPO).repo_id == REPO
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError):
        api.create_repo(REPO)
    api.create_repo(REPO, exist_ok=True)
    (tmp_path / "a.txt").write_text("small")
    (tmp_path / "b.safetensors").write_bytes(bytes(10_000))
    api.upload_folder(folder_path=tmp_path, repo_id=REPO)
    assert set(api.list_repo_files(REPO)) == {".gitattributes", "a.txt", "b.safetensors"}
    api.create_branch(REPO, branch="side")
    api.delete_file("a.txt", REPO, revision="side")
    api.create_tag(REPO, tag="v1")
    refs = api.list_repo_refs(REPO)
    assert {ref.name for ref in (*refs.branches, *refs.tags)} == {"main", "side", "v1"}
    assert len(api.list_repo_commits(REPO, revision="side")) == 3
    api.delete_branch(REPO, branch="side")
    api.delete_tag(REPO, tag="v1")
    assert not api.list_repo_refs(REPO).tags
    path = api.hf_hub_download(REPO, "b.safetensors", cache_dir=tmp_path / "cache")
    assert Path(path).read_bytes() == bytes(10_000)
    with pytest.raises(huggingface_hub.errors.EntryNotFoundError):
        api.hf_hub_download(REPO, "none.txt", cache_dir=tmp_path / "cache")
