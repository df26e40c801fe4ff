"""`embed` and `rank`: answers of a saved model, from pictures and texts."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from renaissance.cli.models import ModelPlace, Revision, Trust
from renaissance.cli.output import JsonFlag, print_facts, print_json, print_table
from renaissance.cli.quiet import quiet
from renaissance.durable import write_atomically
from renaissance.errors import SpecError
from renaissance.spec import shown

if TYPE_CHECKING:
    from torch import Tensor

    from renaissance.inference import Ranking

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
VECTORS = (".safetensors", ".npz")
COLUMNS = ("candidate", "similarity", "probability")

Images = Annotated[
    list[Path] | None, typer.Option("--image", help="A picture, or a folder of pictures; give it again for more.")
]
Texts = Annotated[list[str] | None, typer.Option("--text", help="A text; give it again for more.")]
TextFile = Annotated[Path | None, typer.Option("--texts", help="A file with a text a line.", show_default=False)]
Device = Annotated[str, typer.Option("--device", help="Where to compute: cpu, cuda, cuda:1.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Pictures or texts at once.")]


def add_to(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("embed", epilog="Example: renaissance embed org/name --image photos --out vectors.npz")(embed)
    app.command("rank", epilog='Example: renaissance rank org/name --text "a red cup" --image photos --top 5')(rank)


def embed(
    model: ModelPlace,
    out: Annotated[Path, typer.Option("--out", help=f"The file to write: {' or '.join(VECTORS)}.", show_default=False)],
    image: Images = None,
    text: Texts = None,
    texts: TextFile = None,
    device: Device = "cpu",
    batch_size: BatchSize = 64,
    revision: Revision = None,
    trust: Trust = None,
    as_json: JsonFlag = False,
) -> None:
    """Write unit vectors of pictures and texts, `images` and `texts`; dot products tell how alike two are."""
    if out.suffix not in VECTORS:
        raise SpecError(f"'{shown(out.name)}' ends with no type of file that is known. Use {' or '.join(VECTORS)}.")
    pictures, words = _pictures(image or ()), _words(text or (), texts)
    if not pictures and not words:
        raise SpecError("There is nothing to embed. Give --image, --text or --texts.")
    with quiet():
        from renaissance.pretrained import from_pretrained

        loaded = from_pretrained(model, revision=revision, trust=tuple(trust or ()), device=device)
        found = loaded.embed(pictures or None, words or None, batch_size=batch_size)
    vectors = {name: value for name, value in zip(("images", "texts"), found, strict=True) if value is not None}
    _write(out, vectors)
    sizes = {name: list(value.shape) for name, value in vectors.items()}
    if as_json:
        print_json({"file": str(out), "shapes": sizes, "images": [str(path) for path in pictures], "texts": words})
        return
    print_facts([("file", str(out)), *((name, f"{size[0]} vectors of {size[1]}") for name, size in sizes.items())])


def rank(
    model: ModelPlace,
    image: Images = None,
    text: Texts = None,
    texts: TextFile = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many of the best to tell.")] = 10,
    rerank: Annotated[
        int | None,
        typer.Option("--rerank", min=0, help="How many of the best by vectors are matched; 16 if trained for it."),
    ] = None,
    device: Device = "cpu",
    batch_size: BatchSize = 64,
    revision: Revision = None,
    trust: Trust = None,
    as_json: JsonFlag = False,
) -> None:
    """Order pictures for one text, or texts for one picture, the best first."""
    pictures, words = _pictures(image or ()), _words(text or (), texts)
    if len(words) != 1 and len(pictures) != 1:
        raise SpecError(
            f"rank orders pictures for one text, or texts for one picture, and there are {len(pictures)} pictures and "
            f"{len(words)} texts. Give one of either."
        )
    of_images = len(words) == 1
    with quiet():
        from renaissance.pretrained import from_pretrained

        loaded = from_pretrained(model, revision=revision, trust=tuple(trust or ()), device=device)
        given = (pictures, words[0]) if of_images else (pictures[0], words)
        found = loaded.rank(*given, top=top, rerank=rerank, batch_size=batch_size)
    _print_ranking(found, [str(path) for path in pictures] if of_images else words, as_json=as_json)


def _write(out: Path, vectors: Mapping[str, Tensor]) -> None:
    """Write arrays by name to a file, as a whole.

    Raises:
        OutputError: it cannot be written.
    """
    import numpy as np
    from safetensors.torch import save

    if out.suffix == ".npz":
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {name: value.numpy() for name, value in vectors.items()}
        np.savez(buffer, **arrays)
        data = buffer.getvalue()
    else:
        data = save(dict(vectors))
    write_atomically(out, data)


def _print_ranking(found: Ranking, names: Sequence[str], *, as_json: bool) -> None:
    matched = [None] * len(found.indices) if found.probability is None else found.probability.tolist()
    told = [
        (names[place], alike, None if chance != chance else chance)  # NaN: it was not matched
        for place, alike, chance in zip(found.indices.tolist(), found.similarity.tolist(), matched, strict=True)
    ]
    if as_json:
        print_json({"ranking": [dict(zip(COLUMNS, row, strict=True)) for row in told]})
        return
    cells = [(name, f"{alike:.4f}", "" if chance is None else f"{chance:.4f}") for name, alike, chance in told]
    print_table(COLUMNS, cells, right=COLUMNS[1:])


def _pictures(given: Sequence[Path]) -> list[Path]:
    """Return pictures, in place of a folder those that lie in it, in order of their names.

    Raises:
        SpecError: a folder has none.
    """
    found: list[Path] = []
    for place in given:
        within = [place]
        if place.is_dir():
            within = sorted(path for path in place.iterdir() if path.suffix.lower() in PICTURES)
        if not within:
            raise SpecError(f"The folder {place} has no pictures ({', '.join(PICTURES)}). Give another.")
        found += within
    return found


def _words(given: Sequence[str], file: Path | None) -> list[str]:
    """Return texts, those of a file's lines too.

    Raises:
        SpecError: the file cannot be read, or is no text.
    """
    if file is None:
        return list(given)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{file} cannot be read as lines of text ({error}). Give another file.") from None
    return [*given, *(line for line in lines if line.strip())]
