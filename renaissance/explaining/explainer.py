"""From a model to a folder that explains it: explanation.json, and pictures."""

from __future__ import annotations

import hashlib
import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import renaissance
from renaissance.assemble import Assembly
from renaissance.durable import replacing
from renaissance.errors import MissingPackageError, OutputError, SpecError
from renaissance.evaluation.given import Picture, opened
from renaissance.explaining.outputs import explained_output, plain_copy
from renaissance.explaining.pairs import Pair, prepared_pairs, world_labelled, world_pairs, world_pointed
from renaissance.manifest import REPO, write_json
from renaissance.pretrained import Model, from_pretrained
from renaissance.progress import Progress, Silent
from renaissance.shorthand import format_spec

if TYPE_CHECKING:
    from renaissance.explaining.gradients import Baseline
    from renaissance.explaining.sections import Explaining

FACTS = "explanation.json"
FORMAT = 1
WORLD, GIVEN = "world", "given"
PACKAGES = ("captum", "matplotlib")
SAMPLES, STEPS = 64, 16
# scenes of one thing that probes are fitted to and tested on, for each of the samples asked for
PROBED = 4
DIGITS = 6  # significant ones: more would be noise of the last bits


@dataclass(frozen=True, slots=True)
class Explanation:
    """A folder of pictures, and what explanation.json in it says."""

    folder: Path
    facts: Mapping[str, Any]


def explain(
    model: Any,
    out: str | Path,
    *,
    image: Picture | None = None,
    text: str | None = None,
    data: str | Path | Sequence[tuple[Picture, str]] | None = None,
    split: str | None = None,
    against: Any = None,
    task: str | None = None,
    label: str | None = None,
    samples: int = SAMPLES,
    probes: int | None = None,
    pointing: int | None = None,
    steps: int = STEPS,
    baseline: Baseline = "mean",
    seed: int = 0,
    revision: str | None = None,
    trust: Sequence[str] = (),
    progress: Progress | None = None,
) -> Explanation:
    """Write to the folder `out`, wholly or not at all, what a model looks at and what its layers know.

    model, against: a `Model`, or what `from_pretrained` takes. image, text: one pair, of which each patch and word is
    attributed. data: a folder of prepared data (and its `split`), pairs of a picture and a text, or "world" for drawn
    scenes with boxes: `samples` pairs for modality shares and similarity of layers, on the world for the pointing game
    too. probes: drawn scenes for linear probes; by default four for each of the samples of the world, and none for
    other data, of `against` too. pointing: drawn scenes for the pointing game; by default the samples of the world, and
    none for other data. against: the model that it started from, or another: similarity of layers, and drift. task,
    label: the number that is explained (`itm` before `itc`). steps: of integrated gradients, in each part. revision: of
    `model` on the Hub; trust: the plugins that it and `against` may use. The same call gives the same bytes.

    Raises:
        CapabilityError: the model gives no number that could be explained.
        SpecError: there is nothing to explain, or the attributions do not add up after many more steps.
        SampleError: the picture cannot be read, or the text is empty or too long.
        DataError: the data cannot be used, or are too few.
        MissingPackageError: captum or matplotlib is not installed.
        OutputError: `out` is taken, or cannot be written.
    """
    _check_request(image, text, data, against, samples, probes, pointing, steps)
    _check_packages()
    from renaissance.explaining.sections import Explaining

    target = _free(Path(out).absolute())
    pair = None if image is None or text is None else _given(image, text)
    own = plain_copy(_opened(model, revision, trust).assembly)
    other = None if against is None else plain_copy(_opened(against, None, trust).assembly)
    output = explained_output(own, task, label)
    shown, pairs, facts_of_data = _data(data, split, samples, seed)
    drawn = samples if shown == WORLD else 0
    scenes, probed = drawn if pointing is None else pointing, PROBED * drawn if probes is None else probes
    with replacing(target) as folder:
        work = Explaining(own, output, folder, steps, baseline, seed, progress or Silent())
        found = _sections(work, pair, pairs, other, scenes, probed)
        facts = {
            "format": FORMAT,
            "renaissance": renaissance.__version__,
            "model": _model_facts(model, own),
            "against": None if other is None else _model_facts(against, other),
            "data": facts_of_data,
            "output": {"task": output.task, "label": output.label, "name": output.name},
            "settings": {
                "samples": samples,
                "probes": probed,
                "pointing": scenes,
                "steps": steps,
                "baseline": baseline,
                "seed": seed,
            },
            **found,
            "pictures": work.pictures,
            "unavailable": work.unavailable,
        }
        plain = _plain(facts)
        write_json(folder / FACTS, plain)
    return Explanation(Path(out), plain)


def _sections(
    work: Explaining, pair: Pair | None, pairs: Sequence[Pair], other: Assembly | None, scenes: int, probed: int
) -> dict[str, Any]:
    """Return the figures of each section, null for those that were not asked for.

    scenes: of the pointing game; probed: of linear probes.
    """
    from renaissance.explaining import sections

    names = ("sample", "shares", "cka", "drift", "probes", "probes_against", "pointing")
    calls: dict[str, Any] = dict.fromkeys(names)
    if pair is not None:
        calls["sample"] = lambda: sections.sample_section(work, pair)
    if pairs:
        calls["shares"] = lambda: sections.shares_section(work, pairs)
        calls["cka"] = lambda: sections.cka_section(work, pairs, other)[0]
    if other is not None:
        calls["drift"] = lambda: sections.drift_section(work, other, pairs)
    if probed:
        calls["probes"] = lambda: sections.probes_section(work, world_labelled(probed, work.seed))
    if probed and other is not None:
        calls["probes_against"] = lambda: sections.probes_of(other, world_labelled(probed, work.seed), work.seed)
    if scenes:
        calls["pointing"] = lambda: sections.pointing_section(work, world_pointed(scenes, work.seed))
    asked = [name for name, call in calls.items() if call is not None]
    found = {name: calls[name]() for name in work.progress.track(asked, len(asked), "sections")}
    return {name: found.get(name) for name in calls}


def _check_request(
    image: object,
    text: object,
    data: object,
    against: object,
    samples: int,
    probes: int | None,
    pointing: int | None,
    steps: int,
) -> None:
    if (image is None) != (text is None):
        missing = "text" if text is None else "image"
        raise SpecError(f"A pair is explained: give --{missing} too.")
    if image is None and data is None and against is None and not probes and not pointing:
        raise SpecError("There is nothing to explain the model on. Give --image with --text, --data, or --against.")
    if samples < 1 or steps < 1 or (probes or 0) < 0 or (pointing or 0) < 0:
        raise SpecError(
            "samples and steps are at least 1, probes and pointing at least 0, and they are "
            f"{samples}, {steps}, {probes or 0} and {pointing or 0}."
        )


def _check_packages() -> None:
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(
                f"Explanations need the package {package}. Try: pip install 'renaissance-vl[explain]'"
            )


def _free(target: Path) -> Path:
    """Return `target`, where nothing is yet, or an empty folder."""
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise OutputError(f"{target} exists. Choose another folder, or remove it.")
    return target


def _opened(model: Any, revision: str | None, trust: Sequence[str]) -> Model:
    return model if isinstance(model, Model) else from_pretrained(model, revision=revision, trust=trust)


def _data(
    data: str | Path | Sequence[tuple[Picture, str]] | None, split: str | None, samples: int, seed: int
) -> tuple[str | None, list[Pair], dict[str, Any] | None]:
    """Return what kind of data it is, its pairs, and what is told of them."""
    if data is None:
        return None, [], None
    kind = name = WORLD
    chosen: str | None = None
    if not isinstance(data, str | Path):
        kind, name, pairs = GIVEN, GIVEN, [_given(picture, text) for picture, text in data[:samples]]
    elif str(data) == WORLD:
        pairs = world_pairs(samples, seed)
    else:
        folder = Path(data).expanduser()
        chosen, pairs = prepared_pairs(folder, samples, seed, split)
        kind, name = "prepared", folder.name
    if kind != "prepared" and split is not None:
        what = "The world has" if kind == WORLD else "Pairs have"
        raise SpecError(f"{what} no splits to choose from here. Leave out --split, or prepare the data.")
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(hashlib.sha256(pair.picture.tobytes()).digest() + hashlib.sha256(pair.text.encode()).digest())
    return (
        kind,
        pairs,
        {"kind": kind, "name": name, "split": chosen, "samples": len(pairs), "sha256": digest.hexdigest()},
    )


def _given(picture: Picture, text: str) -> Pair:
    """Return a pair that was given; equal pictures are one picture."""
    found = opened(picture, "The picture")
    return Pair(hashlib.sha256(found.tobytes()).hexdigest(), found, " ".join(text.split()))


def _model_facts(given: Any, assembly: Assembly) -> dict[str, Any]:
    """Return what is told of a model; of a folder its last name alone, as others have no such path."""
    name = None if isinstance(given, Model) else str(given) if REPO.fullmatch(str(given)) else Path(given).name
    return {
        "name": name,
        "spec": format_spec(assembly.plan.spec),
        "tasks": list(assembly.tasks),
        "sha256": weights_digest(assembly),
    }


def weights_digest(assembly: Assembly) -> str:
    """Return the SHA-256 of all tensors of a model with their names, in fp32."""
    digest = hashlib.sha256()
    for name, tensor in sorted(assembly.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """Return data as JSON has it: numbers of six digits, null for those that do not exist."""
    match value:
        case bool() | int() | str() | None:
            return value
        case float():
            return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
        case Mapping():
            return {key: _plain(inner) for key, inner in value.items()}
        case _:
            return [_plain(inner) for inner in value]
