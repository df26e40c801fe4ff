"""Tar shards that would do harm: refused by both of their readers, with nothing unpacked and nothing followed."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from renaissance.data.readers import webdataset
from renaissance.data.streaming.tars import tar_shard
from renaissance.errors import SampleError
from tests.data.readers.builders import encoded, read_all

Members = list[tuple[tarfile.TarInfo, bytes]]


def member(
    name: str,
    data: bytes = b"",
    kind: bytes = tarfile.REGTYPE,
    link: str = "",
    pax: Mapping[str, str] | None = None,
) -> Members:
    facts = tarfile.TarInfo(name)
    facts.size, facts.type, facts.linkname, facts.pax_headers = len(data), kind, link, dict(pax or {})
    return [(facts, data)]


def claiming(name: str, size: int) -> bytes:
    """The header of a member that claims to be so large, and nothing after it."""
    facts = tarfile.TarInfo(name)
    facts.size = size
    return facts.tobuf(tarfile.GNU_FORMAT)


GOOD = [*member("ok.jpg", encoded(1)), *member("ok.txt", b"a caption")]
PICTURE = encoded(2)
# what is put in front of a good sample -> the fault that is told, by the reader and by the index of a stream
NO_FILE = "is no plain file inside of the archive"
HOSTILE: dict[str, tuple[Members, str]] = {
    "absolute": (member("/etc/0.jpg", PICTURE), NO_FILE),
    "two slashes": (member("//0.jpg", PICTURE), NO_FILE),
    "parent": (member("../0.jpg", PICTURE), NO_FILE),
    "parent inside": (member("a/../../0.jpg", PICTURE), NO_FILE),
    "symbolic link": (member("0.jpg", kind=tarfile.SYMTYPE, link="/etc/passwd"), NO_FILE),
    "hard link": (member("0.jpg", kind=tarfile.LNKTYPE, link="ok.jpg"), NO_FILE),
    "hard link out": (member("0.txt", kind=tarfile.LNKTYPE, link="/etc/passwd"), NO_FILE),
    "character device": (member("0.jpg", kind=tarfile.CHRTYPE), NO_FILE),
    "block device": (member("0.jpg", kind=tarfile.BLKTYPE), NO_FILE),
    "pipe": (member("0.jpg", kind=tarfile.FIFOTYPE), NO_FILE),
    "folder": (member("0.jpg", kind=tarfile.DIRTYPE), NO_FILE),
    "sparse": (
        member("0.jpg", pax={"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": "0.jpg",
                                "GNU.sparse.size": "10", "GNU.sparse.map": "0,0"}),
        NO_FILE,
    ),
    "the same member twice": ([*member("0.jpg", PICTURE), *member("0.jpg", encoded(3))], "of one kind"),
    "two pictures": ([*member("0.jpg", PICTURE), *member("0.png", encoded(3, "PNG"))], "of one kind"),
}  # fmt: skip


def written(path: Path, members: Members) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for facts, data in members:
            archive.addfile(facts, io.BytesIO(data))
    return path


def by_reader(folder: Path) -> tuple[list[str], list[str]]:
    """Return the ids of the samples that the reader of `data prepare` gives, and what it tells."""
    items, problems = read_all("webdataset", folder, skip=True)
    return [item.id for item in items], problems.skipped


def by_stream(folder: Path) -> tuple[list[str], list[str]]:
    """Return the ids of the usable samples of a stream, and what it tells."""
    shard, faults = tar_shard(next(folder.glob("*.tar")), "0.tar", folder / "cache")
    records = shard.read(0, shard.count)
    return [record.id.partition("/")[2] for record in records if record.captions], list(faults)


READERS = pytest.mark.parametrize("reading", [by_reader, by_stream])


@READERS
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_member_is_told_of_and_the_other_samples_are_used(
    name: str, reading: Callable[[Path], tuple[list[str], list[str]]], tmp_path: Path
) -> None:
    members, fault = HOSTILE[name]
    file = written(tmp_path / "0.tar", [*members, *GOOD])
    ids, told = reading(tmp_path)
    assert ids == ["ok"]
    assert fault in told[0]
    assert {path for path in tmp_path.rglob("*") if path.suffix not in ("", ".arrow")} == {file}
    with pytest.raises(SampleError):
        read_all("webdataset", tmp_path)


@READERS
@pytest.mark.parametrize("name", ["0.jpg", "0.txt", "0.json"])
def test_a_member_that_claims_a_million_terabytes_is_refused_unread(
    name: str, reading: Callable[[Path], tuple[list[str], list[str]]], tmp_path: Path
) -> None:
    (tmp_path / "0.tar").write_bytes(claiming(name, 10**18))
    ids, told = reading(tmp_path)
    assert ids == []
    assert f"'{name}'" in told[1]
    assert "too large (1,000,000,000,000,000,000 bytes)" in told[1]


@READERS
@pytest.mark.parametrize("suffix", ["pyd", "pkl", "pt", "so", "npy", "cls"])
def test_members_of_other_kinds_are_passed_over(
    suffix: str, reading: Callable[[Path], tuple[list[str], list[str]]], tmp_path: Path
) -> None:
    written(tmp_path / "0.tar", [*member(f"ok.{suffix}", b"\x80\x04c"), *GOOD])
    assert reading(tmp_path) == (["ok"], [])


@READERS
def test_a_shard_of_more_members_than_any_has_is_refused(
    reading: Callable[[Path], tuple[list[str], list[str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webdataset, "MAX_MEMBERS", 5)
    written(tmp_path / "0.tar", [*GOOD, *member("1.jpg", PICTURE), *member("1.txt", b"b"), *(4 * member("x.pkl"))])
    ids, told = reading(tmp_path)
    assert ids == ["ok"]
    assert told == ["0.tar: the shard is damaged (it has more than 5 members)"]


def test_a_sample_that_comes_again_later_is_refused_by_the_index(tmp_path: Path) -> None:
    again = [*member("ok.jpg", encoded(3)), *member("ok.txt", b"another caption")]
    written(tmp_path / "0.tar", [*GOOD, *member("1.jpg", PICTURE), *member("1.txt", b"b"), *again])
    shard, faults = tar_shard(tmp_path / "0.tar", "0.tar", tmp_path / "cache")
    assert [record.captions for record in shard.read(0, shard.count)] == [("a caption",), ("b",)]
    assert set(faults) == {"0.tar: the sample 'ok' stands twice"}
