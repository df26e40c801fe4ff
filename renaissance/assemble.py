"""Plan -> encoder and tasks: the only place that calls factories."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn

from renaissance.api import SavedBackbone, TowerNeeds, Unknown, Weights
from renaissance.errors import PluginError, SpecError
from renaissance.models.adapters import adapter_parameters, add_adapters, lora_rules, take_out_adapters
from renaissance.models.as_published import renew
from renaissance.models.embeddings import NewPatches, NewWords, OtherEmbeddings
from renaissance.models.freezing import freeze, hold_statistics
from renaissance.models.one_tower import OneTower
from renaissance.models.starting import shuffle, take_embeddings
from renaissance.models.transfer import TransferReport, transfer_report
from renaissance.models.two_tower import TwoTower, tower_facts
from renaissance.plans import AnyPlan, OneTowerPlan, Plan, TowerPlan
from renaissance.registry import load_factory
from renaissance.resolve import IMAGE_SIZE, MAX_TOKENS, PATCH_SIZE
from renaissance.rules import without_adapters
from renaissance.spec import STARTS, Start
from renaissance.tensors import align
from renaissance.toolkit.dropout import draw_cheaply
from renaissance.toolkit.random import stream_seed
from renaissance.toolkit.text import TOKENIZER_FILE, WORDPIECE, WordTokenizer, infer_facts, read_tokenizer

Encoder = TwoTower | OneTower
Saved = Mapping[str, SavedBackbone] | None


class Assembly(nn.Module):
    """An encoder with its tasks' heads, and the plan that both were built from."""

    encoder: Encoder
    tasks: nn.ModuleDict

    def __init__(self, plan: AnyPlan, encoder: Encoder, tasks: nn.ModuleDict) -> None:
        super().__init__()
        self.plan = plan
        self.encoder = encoder
        self.tasks = tasks


def assemble(plan: AnyPlan, *, seed: int = 0, saved: Mapping[str, SavedBackbone] | None = None) -> Assembly:
    """Build what a plan says.

    Each part draws its random weights from its own stream of `seed`, so that another fusion head leaves the towers'
    weights as they were. With `saved` (by tower) nothing is downloaded and nothing initialised: all parameters are on
    the meta device until they are loaded; a tower that is not in `saved` is built as the plan says.

    Raises:
        SpecError: the parts do not fit, which for some backbones only their build can tell.
        HubError: pretrained weights or a tokenizer cannot be had.
    """
    slots = max((task.entry.slots for task in plan.tasks.values()), default=1)
    encoder: Encoder
    if isinstance(plan, OneTowerPlan):
        encoder = _one_tower(plan, seed, saved, slots)
    else:
        encoder = _two_tower(plan, seed, saved, slots)
    draw_cheaply(encoder)
    for rule in lora_rules(plan.rules):
        with _stream(seed, str(rule), saved is not None):
            add_adapters(encoder, rule)
    freeze(encoder, plan.rules, train_mode=plan.spec.as_published.frozen_in_train_mode)
    return Assembly(plan, encoder, build_tasks(plan, encoder, seed, empty=saved is not None))


def merge_adapters(assembly: Assembly) -> None:
    """Add what LoRA adapters learned to the layers beside them, take them out, and leave them out of the plan.

    Raises:
        SpecError: there are no adapters.
    """
    plan = assembly.plan
    take_out_adapters(assembly.encoder)
    rules = without_adapters(plan.rules)
    starts = [rule for rule in plan.spec.rules if rule.action in STARTS]
    spec: Any = plan.spec.model_copy(update={"rules": (*starts, *rules)})
    assembly.plan = replace(plan, spec=spec, rules=rules)
    freeze(assembly.encoder, rules, train_mode=spec.as_published.frozen_in_train_mode)


def _two_tower(plan: Plan, seed: int, saved: Saved, slots: int) -> TwoTower:
    empty = saved is not None
    vision = _tower(plan.vision, seed, saved)
    text = _tower(plan.text, seed, saved)
    facts = {"vision": tower_facts(vision), "text": tower_facts(text)}
    with _stream(seed, "fusion", empty):
        blocks = _text_blocks(plan, text, seed, empty)
        fusion = load_factory(plan.fusion.entry)(plan.fusion.options, **facts, **blocks)
    with _stream(seed, "slots", empty):
        return TwoTower(vision, text, fusion, plan.fusion.entry, slots, _needs(plan), plan.spec.as_published)


def _one_tower(plan: OneTowerPlan, seed: int, saved: Saved, slots: int) -> OneTower:
    empty, modality = saved is not None, plan.base.entry.modality
    base: Any = _tower(plan.base, seed, saved)
    if not (hasattr(base, "join") and len(base.blocks)):
        raise SpecError(
            f"'{plan.base.name}' cannot be the base of a one-tower model: its blocks do not take tokens of another "
            "modality. Use a plain transformer, such as 'vit-base' or 'bert-base'."
        )
    if hasattr(base, "keep_tokens"):  # a pooler of its own would never be run
        base.keep_tokens()
    if plan.donor is None:
        embedder: Any = _new_embeddings(plan, base.width, seed, saved)
    else:
        embedder = _tower(plan.donor, seed, saved)
        if not hasattr(embedder, "keep_embeddings"):
            raise SpecError(f"'{plan.donor.name}' cannot give its embeddings alone; leave it out, for new ones.")
        embedder.keep_embeddings()
    with _stream(seed, "one-tower", empty):
        other = OtherEmbeddings(embedder, base.width)
        if plan.spec.as_published.inner_layers_only and not empty:
            renew((*base.embeddings, *base.final))
        masked = not plan.spec.as_published.no_padding_mask
        return OneTower(base, other, modality, pooling=plan.spec.pooling, slots=slots, masked=masked)


def _new_embeddings(plan: OneTowerPlan, width: int, seed: int, saved: Saved) -> Any:
    """Return new embeddings of the modality that the base lacks, or saved ones without their weights."""
    modality, spec = "text" if plan.base.entry.modality == "vision" else "vision", plan.spec
    with _stream(seed, modality, saved is not None):
        if saved is not None:
            kind = NewPatches if modality == "vision" else NewWords
            return kind.restored(saved[modality])
        if modality == "vision":
            return NewPatches(width, spec.image_size or IMAGE_SIZE, spec.patch_size or PATCH_SIZE)
        max_tokens = spec.max_tokens or MAX_TOKENS
        if spec.tokenizer is None:
            return NewWords(width, WordTokenizer.load(WORDPIECE).with_max_tokens(max_tokens))
        tokenizer = read_tokenizer(Path(spec.tokenizer) / TOKENIZER_FILE)
        return NewWords(width, WordTokenizer(tokenizer, infer_facts(tokenizer, max_tokens=max_tokens)))


def build_tasks(plan: AnyPlan, encoder: Encoder, seed: int, *, empty: bool = False) -> nn.ModuleDict:
    """Build the heads of a plan's tasks for an encoder; `empty`: on the meta device, to be loaded.

    Raises:
        PluginError: a task is no task: it says that it measures models, and has no `score`.
    """
    tasks = nn.ModuleDict()
    for name, task in plan.tasks.items():
        with _stream(seed, f"task {name}", empty):
            tasks[name] = load_factory(task.entry)(task.options, model=encoder.facts())
        if task.entry.evaluates and not callable(getattr(tasks[name], "score", None)):
            raise PluginError(
                f"The task '{name}' of the plugin '{task.plugin}' says that it measures, and has no method 'score'; "
                "report it to the plugin, or leave the task out."
            )
    if not empty:
        begin_as(tasks, plan, tasks)
    return tasks


def begin_as(tasks: nn.ModuleDict, plan: AnyPlan, new: Iterable[str]) -> None:
    """Give the new heads that begin as another one its weights, if the model has that one."""
    for name in new:
        other = plan.tasks[name].entry.begins_as
        if other is not None and other in tasks:
            tasks[name].load_state_dict(tasks[other].state_dict())


def encoder_report(assembly: Assembly) -> TransferReport:
    """Return which tensors of an encoder its plan takes from pretrained backbones, which are resized, or new."""
    plan, encoder = assembly.plan, assembly.encoder
    added = frozenset(map(id, adapter_parameters(encoder)))
    if isinstance(plan, Plan):
        return transfer_report(encoder, {"vision": plan.vision, "text": plan.text}, added)
    base: Any = encoder.encoder
    renewed = (*base.embeddings, *base.final) if plan.spec.as_published.inner_layers_only else ()
    places = {"base": plan.base, **({} if plan.donor is None else {"other.embedder": plan.donor})}
    ids = frozenset(id(parameter) for module in renewed for parameter in module.parameters())
    return transfer_report(encoder, places, ids | added)


def _needs(plan: Plan) -> TowerNeeds:
    return plan.fusion.entry.needs(plan.fusion.options)


def _text_blocks(plan: Plan, text: Any, seed: int, empty: bool) -> dict[str, Any]:
    """Return the blocks of the text backbone that the fusion head shares, or inherits, as an argument of its factory.

    What is inherited are the blocks that follow the tower's last one in the backbone that it is cut from.
    """
    needs = _needs(plan)
    if needs.text_blocks is None:
        return {}
    if not hasattr(text, "text_blocks"):
        raise SpecError(
            f"'{plan.fusion.name}' runs blocks of the text tower in halves, and '{plan.text.name}' has none that run "
            "so. Use a text tower such as 'bert-base', or leave out text_blocks."
        )
    if needs.text_blocks == "shared":
        return {"text_blocks": _shared_blocks(plan, text, needs.count)}
    if empty:  # blocks of one backbone have one shape, and their weights are loaded
        return {"text_blocks": [copy.deepcopy(text.text_blocks()[0]) for _ in range(needs.count)]}
    depth = len(text.blocks)
    whole = plan.text.options.model_copy(update={"layers": depth + needs.count})
    facts = plan.text.entry.describe(whole)
    donor: Any = _tower(replace(plan.text, options=whole, facts=facts), seed, None)
    return {"text_blocks": donor.text_blocks()[depth:]}


def _shared_blocks(plan: Plan, text: Any, count: int) -> Any:
    """Return the first `count` blocks of the text tower in halves."""
    blocks = text.text_blocks()
    if len(blocks) < count:
        raise SpecError(
            f"'{plan.fusion.name}' shares {count} blocks of the text tower, and '{plan.text.name}' has {len(blocks)}; "
            f"say {plan.fusion.name}(layers={len(blocks)}) or fewer."
        )
    return blocks[:count]


def _tower(tower: TowerPlan, seed: int, saved: Saved) -> nn.Module:
    kept = None if saved is None else saved.get(tower.entry.modality)
    built = _started(tower, tower.weights, seed, kept)
    if kept is None and tower.embeddings != tower.weights:
        take_embeddings(built, _started(tower, tower.embeddings, seed), name=tower.name)
    _check_facts(tower, built, new=kept is None)
    if tower.weights != "random":
        hold_statistics(built)
        align(built)
    return built


def _started(tower: TowerPlan, start: Start, seed: int, kept: SavedBackbone | None = None) -> nn.Module:
    """Return a backbone all of which starts from one thing; `kept`: as it was saved, to be loaded."""
    modality = tower.entry.modality
    read: Weights = "random" if start == "random" else "pretrained"
    # With weights="none" the factory itself keeps parameters on meta: only it knows which buffers must be real.
    with _stream(seed, modality, False):
        factory = load_factory(tower.entry)
        built: nn.Module = factory(tower.options, weights=read if kept is None else "none", saved=kept)
    if start == "shuffled" and kept is None:
        shuffle(built, seed, modality)
    return built


def _check_facts(tower: TowerPlan, built: Any, *, new: bool) -> None:
    """Compare what is declared of a tower with what was built; a saved one may since have been cut or resized."""
    shown = {"width": built.width}
    if new:
        shown |= _built_facts(tower, built)
    for fact, found in shown.items():
        declared = getattr(tower.facts, fact)
        if declared is None or isinstance(declared, Unknown) or declared == found:
            continue
        raise SpecError(
            f"'{tower.name}' says that its {fact.replace('_', ' ')} is {declared}, and built it is {found}; report it "
            "to its plugin."
        )


def _built_facts(tower: TowerPlan, built: Any) -> dict[str, Any]:
    """Return the facts that a tower shows when it is built, by the name under which they are declared."""
    found: dict[str, Any] = {"class_token": built.class_token}
    if len(built.blocks):
        found["depth"] = len(built.blocks)
    if getattr(built, "grid", None) is not None:
        found["grid"] = tuple(built.grid)
    if tower.entry.modality == "vision" and len(set(built.processor.image_size)) == 1:
        found["image_size"] = built.processor.image_size[0]
    if tower.entry.modality == "text":
        found["max_tokens"] = built.processor.facts.max_tokens
    return found


@contextmanager
def _stream(seed: int, part: str, empty: bool) -> Iterator[None]:
    """Draw random weights from a part's own stream, and leave the global one as it was; or make no weights at all."""
    if empty:
        with init_empty_weights(include_buffers=False):
            yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, part))
        yield
