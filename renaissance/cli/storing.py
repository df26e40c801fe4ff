"""`features`: build, look at, verify and clear out stores of what frozen towers give."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from renaissance.cli.output import JsonFlag, note, print_facts, print_json, print_table
from renaissance.cli.quiet import quiet
from renaissance.cli.running import DataOption, RecipeArgument, SetOption, changed

if TYPE_CHECKING:
    from renaissance.features.frozen import Wanted
    from renaissance.features.housekeeping import StoreFacts
    from renaissance.progress import Progress
    from renaissance.recipe import Recipe

FolderOption = Annotated[
    Path | None,
    typer.Option("--folder", help="Where the stores are; default: 'features' in the cache.", show_default=False),
]
SOME_DIGITS = 12


def add_to(app: typer.Typer) -> None:
    """Add this group's commands."""
    example = "Example: renaissance features build recipes/pictures.yaml --data ../my-pictures --dry-run"
    app.command("build", epilog=example)(build)
    app.command("info", epilog="Example: renaissance features info --json")(info)
    app.command("verify", epilog="Example: renaissance features verify recipes/pictures.yaml")(verify)
    example = "Example: renaissance features gc --older-than 30 --keep-gb 200 --dry-run"
    app.command("gc", epilog=example)(gc)


def build(
    recipe: RecipeArgument,
    data: DataOption = None,
    set_: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how large it would become; write nothing.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Run what a recipe freezes over its data, and store what it gives; what is there already is not run again."""
    with quiet():
        from renaissance.features.frozen import forecasts
        from renaissance.progress import Bars, closing
        from renaissance.training.stores import build_stores, store_folder

        chosen = _recipe(recipe, data, set_)
        folder = store_folder(chosen.store)
        with closing(Bars()) as progress:
            wishes = _wishes(chosen, progress)
            planned = forecasts(wishes, folder)
            if not dry_run:
                build_stores(wishes, folder, progress)
    rows: list[dict[str, Any]] = [
        {"part": wish.part.name, "key": wish.key, "folder": str(folder), **asdict(planned[modality])}
        for modality, wish in wishes.items()
    ]
    if as_json:
        print_json({"dry_run": dry_run, "stores": rows})
        return
    print_table(
        ("part", "store", "samples", "computed" if not dry_run else "to compute", "adds about"),
        [
            (
                row["part"],
                row["key"][:SOME_DIGITS],
                f"{row['samples']:,}",
                f"{row['missing']:,}",
                _size(row["data_bytes"]),
            )
            for row in rows
        ],
        right=("samples", "computed", "to compute", "adds about"),
    )
    free = min(row["free_bytes"] for row in rows)
    print_facts([("folder", str(folder)), ("free before", _size(free))])


def info(folder: FolderOption = None, as_json: JsonFlag = False) -> None:
    """Show the stores: what they hold, how large they are, and when they were last used."""
    from renaissance.features.housekeeping import stores_in

    place = _folder(folder)
    stores = stores_in(place)
    if as_json:
        print_json({"folder": str(place), "stores": [asdict(store) for store in stores]})
        return
    _print_stores(stores)
    total = sum(store.file_bytes for store in stores)
    print_facts([("folder", str(place)), ("stores", f"{len(stores)}, {_size(total)}")])


def verify(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE]", help="Verify the stores of this recipe, and its samples; default: all stores."
        ),
    ] = None,
    data: DataOption = None,
    set_: SetOption = None,
    folder: FolderOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Read stores whole and compare them with their checksums; of a recipe, read its images again too.

    A sample whose content has changed is one that is not stored: the next run computes it.
    """
    from renaissance.errors import FeatureStoreError
    from renaissance.features.housekeeping import stores_in, verify_stores
    from renaissance.progress import Bars, closing

    with quiet(), closing(Bars()) as progress:
        missing: dict[str, int] = {}
        place, keys = _folder(folder), None
        if recipe is not None:
            place, keys, missing = _samples_missing(_recipe(recipe, data, set_), progress)
        stores = [store for store in stores_in(place) if keys is None or store.key in keys]
        faults = verify_stores(stores, progress.bar("Shards"))
    if as_json:
        print_json({"stores": [store.key for store in stores], "faults": faults, "missing": missing})
    else:
        for fault in faults:
            note(fault)
        shards = sum(store.shards for store in stores)
        read = f"{_counted(len(stores), 'store')} with {_counted(shards, 'shard')}"
        print(f"{read} {'was' if len(stores) == 1 else 'were'} read; {_damaged(len(faults))}.")
        for part, count in missing.items():
            print(f"{part}: {count:,} samples are not stored" + (", or have changed." if count else "."))
    if faults:
        them = "it" if len(faults) == 1 else "them"
        raise FeatureStoreError(f"{_damaged(len(faults))}; delete {them}, and the next run computes {them} again.")


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _damaged(count: int) -> str:
    return f"{_counted(count, 'shard')} {'is' if count == 1 else 'are'} damaged"


def gc(
    older_than: Annotated[
        float | None, typer.Option("--older-than", min=0.0, help="Delete stores not used for so many days.")
    ] = None,
    keep_gb: Annotated[
        float | None, typer.Option("--keep-gb", min=0.0, help="Delete the longest unused until so many GB are left.")
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option("--keep", metavar="RECIPE", help="Spare the stores of this recipe.")
    ] = None,
    folder: FolderOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted; delete nothing.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Delete stores by age, by size, or both; never one that a process reads or builds."""
    from renaissance.features.housekeeping import collect

    spared = _keys_of(keep or ())
    days = None if older_than is None else older_than * 86_400
    size = None if keep_gb is None else keep_gb * 1e9
    found = collect(_folder(folder), older_than=days, keep_bytes=size, keep=spared, dry_run=dry_run)
    if as_json:
        print_json({"dry_run": dry_run, "stores": [asdict(removal) for removal in found]})
        return
    for removal in found:
        outcome = "is in use, and stays" if removal.in_use else ("would go" if dry_run else "is deleted")
        print(f"{removal.store.key[:SOME_DIGITS]} ({_size(removal.store.file_bytes)}): {removal.reason}: {outcome}.")
    freed = sum(removal.store.file_bytes for removal in found if not removal.in_use)
    print(f"{_size(freed)} {'would be' if dry_run else 'are'} free.")


def _recipe(recipe: str, data: Path | None, set_: list[str] | None) -> Recipe:
    from renaissance.recipe import as_recipe

    return changed(as_recipe(recipe, data=data), set_ or (), None)


def _wishes(recipe: Recipe, progress: Progress) -> dict[Any, Wanted]:
    from renaissance.registry import default_registry
    from renaissance.training.stores import wishes_of_recipe

    return dict(wishes_of_recipe(recipe, default_registry(), progress))


def _samples_missing(recipe: Recipe, progress: Progress) -> tuple[Path, set[str], dict[str, int]]:
    """Return the folder and the keys of a recipe's stores, and by part how many of its samples they lack."""
    from renaissance.features.housekeeping import digests_in
    from renaissance.training.stores import store_folder

    folder, wishes = store_folder(recipe.store), _wishes(recipe, progress)
    keys = {wish.part.name: wish.key for wish in wishes.values()}
    missing = {
        wish.part.name: len(set(wish.digests) - digests_in(folder / keys[wish.part.name])) for wish in wishes.values()
    }
    return folder, set(keys.values()), missing


def _keys_of(recipes: list[str] | tuple[()]) -> set[str]:
    """Return the keys of the stores of recipes; their images are not read."""
    if not recipes:
        return set()
    with quiet():
        from renaissance.registry import default_registry
        from renaissance.training.stores import keys_of_recipe

        return {key for recipe in recipes for key in keys_of_recipe(_recipe(recipe, None, None), default_registry())}


def _folder(folder: Path | None) -> Path:
    from renaissance.data.cache import cache_folder

    return folder.expanduser() if folder is not None else cache_folder() / "features"


def _print_stores(stores: list[StoreFacts]) -> None:
    print_table(
        ("store", "part", "tower", "kept in", "samples", "size", "unused for", "state"),
        [
            (
                store.key[:SOME_DIGITS],
                store.part,
                store.tower,
                store.kept,
                f"{store.samples:,}",
                _size(store.file_bytes),
                f"{(time.time() - store.last_used) / 86_400:.1f} days",
                store.fault or "whole",
            )
            for store in stores
        ],
        right=("samples", "size", "unused for"),
    )


def _size(count: float) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e8 else f"{count / 1e6:,.2f} MB"
