from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from renaissance.api import BackboneEntry, TaskEntry, hookimpl
from renaissance.errors import PluginError, SpecError, UnknownComponentError
from renaissance.plans import OneTowerPlan, Plan
from renaissance.registry import Plugin, Registry
from renaissance.resolve import resolve
from renaissance.shorthand import format_spec, parse_spec
from renaissance.spec import OneTowerSpec

TOWERS = "vit-base + bert-base"


def frozen(line: str) -> list[str]:
    return [str(rule).removeprefix("frozen ") for rule in resolve(f"{TOWERS}, {line}").rules]


# --- components -------------------------------------------------------------------------------------------------------


def test_a_text_backbone_in_the_vision_tower_is_told_the_order() -> None:
    with pytest.raises(SpecError) as caught:
        resolve("bert-base + vit-base")
    assert str(caught.value) == (
        "'bert-base' encodes text, but it is in the vision tower. "
        "The vision backbone comes first: 'vit-base + bert-base'."
    )


def test_a_vision_backbone_in_the_text_tower_is_told_the_order() -> None:
    with pytest.raises(SpecError, match="'vit-base' encodes images, but it is in the text tower"):
        resolve("vit-base + vit-base")


def test_a_library_without_text_models_is_no_text_tower() -> None:
    with pytest.raises(
        SpecError, match=r"The library 'timm' gives vision backbones only, and 'timm:resnet18' is in the text"
    ):
        resolve("vit-base + timm:resnet18")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "vit-bse + bert-base",
            r"No installed plugin offers a vision backbone called 'vit-bse'\. Did you mean 'vit-base'\?",
        ),
        ("vit-base + bert-bse", r"a text backbone called 'bert-bse'\. Did you mean 'bert-base'\?"),
        ("vit-base + bert-base, lxmrt", r"a fusion head called 'lxmrt'\. Did you mean 'lxmert'\?"),
        ("vit-base + xyz:thing", r"Try: pip install renaissance-plugin-xyz"),
    ],
)
def test_an_unknown_component_is_told_the_nearest_name(line: str, message: str) -> None:
    with pytest.raises(UnknownComponentError, match=message):
        resolve(line)


def test_an_unknown_task_is_told_the_nearest_name() -> None:
    with pytest.raises(UnknownComponentError, match=r"a task called 'mln'\. Did you mean 'mlm'\?"):
        resolve(TOWERS, ("mln",))


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "vit-base(image_sise=224) + bert-base",
            r"'vit-base' has no option 'image_sise'\. Did you mean 'image_size'\? Its options:",
        ),
        (f"{TOWERS}, lxmert(layer=2)", r"'lxmert' has no option 'layer'\. Did you mean 'layers'\?"),
        (f'{TOWERS}, lxmert(layers="2")', r"lxmert: 'layers': input should be a valid integer"),
        (f"{TOWERS}, lxmert(layers=true)", r"lxmert: 'layers': input should be a valid integer"),
        (f"{TOWERS}, lxmert(layers=2.0)", r"lxmert: 'layers': input should be a valid integer"),
        (f"{TOWERS}, lxmert(layers=0)", r"lxmert: 'layers': input should be greater than or equal to 1"),
        (f"{TOWERS}, lxmert(dropout=1)", r"lxmert: 'dropout': input should be less than 1"),
        (f"{TOWERS}, lxmert(width=100, heads=3)", r"3 heads do not divide a width of 100; the nearest number is 2"),
        ("vit-base(width=100, heads=3) + bert-base", r"heads=3 does not divide width=100"),
    ],
)
def test_a_wrong_option_is_told_what_can_be_written(line: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        resolve(line)


def test_a_wrong_option_of_a_task_is_told_what_can_be_written() -> None:
    with pytest.raises(SpecError, match=r"'mlm' has no option 'probabilty'\. Did you mean 'probability'\?"):
        resolve(TOWERS, {"mlm": {"probabilty": 0.2}})
    with pytest.raises(SpecError, match=r"mlm: 'probability': input should be less than or equal to 1"):
        resolve(TOWERS, {"mlm": {"probability": 2}})


@pytest.mark.parametrize(
    "tower", ["timm", 'timm(model="resnet18")', 'timm:resnet18(model="resnet50")', 'timm:resnet18(revision="main")']
)
def test_a_model_of_a_library_stands_in_its_name_and_nowhere_else(tower: str) -> None:
    with pytest.raises(SpecError, match="'timm' is a library; a model of it, and its revision, stand in the name"):
        resolve(f"{tower} + bert-base")


def test_a_model_and_revision_are_taken_from_the_name() -> None:
    plan = resolve("transformers:google/vit@abc + bert-base")
    assert plan.vision.options.model_dump(include={"model", "revision"}) == {"model": "google/vit", "revision": "abc"}
    assert plan.spec.vision.name == "transformers:google/vit@abc"


# --- layers -----------------------------------------------------------------------------------------------------------


def test_a_slice_builds_the_first_layers() -> None:
    assert resolve("vit-base + bert-base[:6]").text.facts.depth == 6
    assert resolve("vit-base + bert-base[0:-2]").text.facts.depth == 10


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "vit-base + bert-base[:99]",
            r"'bert-base' has 12 layers, so '\[:99\]' reaches beyond it; count from -12 to 12",
        ),
        ("vit-base + bert-base[:0]", r"'\[:0\]' of the 12 layers of 'bert-base' is empty"),
        ("vit-base + bert-base[6:]", r"cannot be built yet: only first layers can"),
        ("vit-base + bert-base[2:6]", r"'bert-base\[2:6\]' cannot be built yet"),
        ("swin-tiny[:2] + bert-base", r"'swin-tiny' does not list its layers"),
        (
            "timm:vit_base[:-1] + bert-base",
            r"The depth of 'timm:vit_base' is known at build only|does not list its layers",
        ),
        (f"{TOWERS}, frozen text[:99]", r"'bert-base' has 12 layers, so '\[:99\]' reaches beyond it"),
        (f"{TOWERS}, frozen text[-99:3]", r"'bert-base' has 12 layers, so '\[-99:3\]' reaches beyond it"),
        (f"{TOWERS}, trainable text[6:2]", r"'bert-base' is empty; .* counting from -12 to 12"),
    ],
)
def test_a_slice_that_cannot_be_built_is_refused_by_name(line: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        resolve(line)


# --- what is not built yet --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("swin-tiny, one-tower", "'swin-tiny' cannot be the base of a one-tower model"),
        ("vit-base + deit-tiny, one-tower", "encode the same"),
        ("transformers:org/model, one-tower", "can be of either modality"),
        ("transformers:swin, one-tower, random encoder", "the base of a one-tower model: its windows"),
        ("transformers:resnet, one-tower, random encoder", "the base of a one-tower model: its convolutions"),
        ("transformers:t5, one-tower, random encoder", "the base of a one-tower model: it runs as a whole"),
        ('transformers:swin, one-tower(modality="text")', "'swin' is a vision encoder.*such as 'bert-base'"),
        ("transformers:bert + transformers:vit", "'bert' is a text encoder.*such as 'vit-base'"),
        ('vit-base, one-tower(modality="text")', "'vit-base' encodes images, and modality='text' says something else"),
        ('bert-base, one-tower(modality="vision")', "'bert-base' encodes text, and modality='vision' says something"),
        ("bert-base, one-tower(image_size=224, patch_size=300)", "use image_size=224, patch_size=112"),
        ("vit-base(image_size=224, patch_size=300) + bert-base", "Use image_size=224, patch_size=112"),
        ("vit-base, one-tower, frozen encoder[:99]", "has 12 layers"),
        ("vit-base, one-tower, frozen vision", "is no part of this one-tower model"),
        ("vit-base, one-tower(image_size=64)", "is for new vision embeddings"),
        ("bert-base, one-tower(image_size=225)", "use image_size=224"),
        ("vit-base + bert-base, as-published(inner_layers_only=true)", "a fault of one-tower models"),
        ("vit-base, one-tower, as-published(ids_embedded_twice=true)", "a fault of two-tower models"),
        (f"{TOWERS}, lora text, lora(rank=2) text[:2]", r"one part takes one set of adapters; keep one of them"),
        (f"{TOWERS}, lora text[:2], frozen text", r"'frozen text' after 'lora text\[:2\]' would freeze the adapters"),
        (f"{TOWERS}, lora text, trainable text", r"'trainable text' after 'lora text' would train all that it adapts"),
        (f"{TOWERS}, lora(rnk=8) text", r"'lora text': unknown key 'rnk'. Did you mean 'rank'\?"),
        (f"{TOWERS}, lora(rank=0) text", r"'lora text': 'rank': .*greater than or equal to 1"),
        (f"{TOWERS}, lora text.norms", r"lora takes a part or its layers; write 'lora text', and name .* by targets"),
        (f"{TOWERS}, bitfit text.norms", r"bitfit trains the biases of whole layers; write 'bitfit text'"),
        (f"{TOWERS}, bitfit(rank=1) both", r"'bitfit' has no options"),
        (f"{TOWERS}, frozen fusion.embeddings", r"a fusion head has no embeddings; write 'frozen fusion'"),
        (f"{TOWERS}, frozen encoder", "'encoder' is a part of one-tower models"),
        (
            f"{TOWERS}, random text[:2]",
            "weights are chosen for whole towers, or for their embeddings; write 'random text'",
        ),
        (f"{TOWERS}, pretrained fusion", "A fusion head has no pretrained weights of its own"),
        ("tiny-vit(width=64) + bert-base", "'tiny-vit' has pretrained weights of its default sizes alone"),
        (f"{TOWERS}, frozen text.embeddings[:1]", r"embeddings have no layers; write 'frozen text.embeddings', or"),
        ("swin-tiny + bert-base, frozen vision[:2]", "'swin-tiny' does not list its layers; write 'frozen vision'"),
        (
            f"{TOWERS}, random text.norms",
            r"weights are chosen for whole towers, or for their embeddings; write 'random text'",
        ),
        (
            f'{TOWERS}, random text("*.query.*")',
            r"weights are chosen for whole towers, or for their embeddings; write 'random text'",
        ),
        ("vit-base + bert-base, one-tower, lora text", r"these are embeddings alone; write 'frozen text'"),
        ("vit-base + bert-base, one-tower, frozen text[:2]", r"these are embeddings alone; write 'frozen text'"),
    ],
)
def test_what_is_not_built_yet_is_refused_by_name(line: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        resolve(line)


# --- rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "held"),
    [
        ("frozen text", ["text"]),
        ("frozen both", ["vision", "text"]),
        ("frozen both, trainable vision", ["text"]),
        ("trainable text, frozen text", ["text"]),
        ("frozen text, trainable text", []),
        ("frozen text[:3], frozen text[:6]", ["text[:6]"]),
        ("frozen text[:6], frozen text[:3]", ["text[:6]"]),
        ("frozen text[:-4]", ["text[:8]"]),
        ("frozen text[0:6]", ["text[:6]"]),
        ("frozen text.embeddings", ["text.embeddings"]),
        ("frozen text.embeddings, frozen text[:2]", ["text[:2]"]),
        ("frozen fusion, frozen text", ["text", "fusion"]),
        ("frozen text[:6], trainable text, frozen text[:2]", ["text[:2]"]),
        ("trainable text", []),
        ("frozen text, trainable text[-2:]", ["text", "trainable text[10:]"]),
        ("trainable text[-2:], frozen text[:4]", ["text[:4]"]),
        ("frozen text[:4], frozen text[6:8], frozen text[:4]", ["text[6:8]", "text[:4]"]),
        ("frozen text, frozen text[:2], trainable text.norms, frozen text.norms", ["text"]),
        ("frozen text.norms, frozen text", ["text"]),
        ("frozen text[0:]", ["text"]),
        ("frozen text[8:], frozen text[8:12]", ["text[8:]"]),
        ("frozen text[8:12], frozen text[8:]", ["text[8:]"]),
        ('frozen text("*.attention.*"), frozen text("*.attention.*")', ['text("*.attention.*")']),
        ('frozen text("*.query.*"), frozen text("*.value.*")', ['text("*.query.*")', 'text("*.value.*")']),
        ("frozen text, lora(rank=8) text", ["lora text"]),
        ("lora(rank=4) text[:6], frozen text.norms", ["lora text[:6]", "text.norms"]),
        ("bitfit both", ["bitfit vision", "bitfit text"]),
        ("lxmert", []),
    ],
)
def test_later_rules_win(line: str, held: list[str]) -> None:
    assert frozen(line) == held


@pytest.mark.parametrize(
    ("line", "held"),
    [
        ("frozen vision[0:], frozen vision[:2]", ["vision"]),
        ("frozen vision[:2], frozen vision[0:]", ["vision"]),
        ("frozen vision[0:], frozen vision.embeddings", ["vision"]),
        ("frozen vision[:2], frozen vision[:5]", ["vision[:5]"]),
        ("frozen vision[:-2], frozen vision[:-1]", ["vision[:-1]"]),
        ("frozen vision[:3], frozen vision[:-2]", ["vision[:3]", "vision[:-2]"]),
        ("frozen vision[:3], frozen vision[:-2], frozen vision", ["vision"]),
        ("frozen vision[:3], frozen vision[:-2], trainable vision", []),
    ],
)
def test_of_a_depth_that_only_the_build_knows_the_widest_range_holds(line: str, held: list[str]) -> None:
    rules = resolve(f"timm:of_a_newer_timm + bert-base, {line}").rules
    assert [str(rule).removeprefix("frozen ") for rule in rules] == held


def test_later_words_on_weights_win() -> None:
    plan = resolve(f"{TOWERS}, random both, pretrained text")
    assert (plan.vision.weights, plan.text.weights) == ("random", "pretrained")


# --- tasks ------------------------------------------------------------------------------------------------------------


def test_retrieval_needs_itc_or_itm() -> None:
    with pytest.raises(SpecError, match="The task 'retrieval' needs one of: itc, itm; add one"):
        resolve(TOWERS, ("mlm", "retrieval"))


def test_retrieval_by_itm_alone_scores_every_pair() -> None:
    assert "retrieval" in resolve(TOWERS, {"itm": {}, "retrieval": {"rerank": "all"}}).tasks
    for options in ({}, {"rerank": 8}, {"rerank": "all", "score": "itm+itc"}):
        with pytest.raises(SpecError, match="orders by ITC's similarities; add the task 'itc', or say rerank=all"):
            resolve(TOWERS, {"itm": {}, "retrieval": options})


def test_re_ranking_needs_itm() -> None:
    with pytest.raises(SpecError, match="rerank orders by ITM scores; add the task 'itm', or leave rerank out"):
        resolve(TOWERS, {"itc": {}, "retrieval": {"rerank": 8}})
    assert "retrieval" in resolve(TOWERS, {"itc": {}, "itm": {}, "retrieval": {"rerank": 8}}).tasks
    assert "retrieval" in resolve(TOWERS, {"itc": {}, "retrieval": {}}).tasks


@pytest.mark.parametrize("task", ["mlm", "itm"])
def test_a_dual_encoder_fuses_nothing(task: str) -> None:
    with pytest.raises(SpecError, match=f"The task '{task}' reads the fused .* output, which 'dual' does not give"):
        resolve(f"{TOWERS}, dual", (task,))


def test_a_dual_encoder_takes_contrast_and_retrieval() -> None:
    assert list(resolve(f"{TOWERS}, dual", ("itc", "retrieval")).tasks) == ["itc", "retrieval"]


def plugin(name: str, *entries: TaskEntry | BackboneEntry) -> Plugin:
    """Return a plugin that offers these tasks and backbones, its module held in memory."""
    module = ModuleType(f"plugin_{name}_in_memory")
    tasks = [entry for entry in entries if isinstance(entry, TaskEntry)]
    backbones = [entry for entry in entries if isinstance(entry, BackboneEntry)]
    module.register_backbones = hookimpl(lambda: backbones)  # type: ignore[attr-defined]  # a module made here
    module.register_tasks = hookimpl(lambda: tasks)  # type: ignore[attr-defined]  # a module made here
    sys.modules[module.__name__] = module
    return Plugin(name, module.__name__, f"renaissance-plugin-{name}", "0.3")


def task(name: str, **facts: Any) -> TaskEntry:
    return TaskEntry(name=name, summary="A test", factory="x:y", **facts)


def test_tasks_run_after_those_that_they_need_and_else_in_the_order_given() -> None:
    registry = Registry([plugin("order", task("last", needs=("middle",)), task("middle", needs=("itc",)))])
    plan = resolve(TOWERS, ("last", "mlm", "middle", "itm", "itc"), registry=registry)
    names = list(plan.tasks)
    assert names.index("itc") < names.index("middle") < names.index("last")
    assert names.index("mlm") < names.index("itm")


def test_a_missing_need_and_a_circle_are_refused() -> None:
    registry = Registry([plugin("circle", task("a", needs=("b",)), task("b", needs=("a",)))])
    with pytest.raises(SpecError, match="The task 'a' needs the task 'b'; add it"):
        resolve(TOWERS, ("a",), registry=registry)
    with pytest.raises(SpecError, match="The tasks a, b need each other in a circle"):
        resolve(TOWERS, ("a", "b"), registry=registry)


def test_two_tasks_of_one_name_are_refused_not_lost() -> None:
    registry = Registry([plugin("rival", task("mlm"))])
    with pytest.raises(SpecError, match="Two tasks are called 'mlm'"):
        resolve(TOWERS, ("mlm", "rival:mlm"), registry=registry)


def test_a_plan_names_the_third_party_plugins_that_it_needs() -> None:
    registry = Registry([plugin("extra", task("other"))])
    assert resolve(TOWERS, ("mlm",), registry=registry).plugins == {}
    plan = resolve(TOWERS, ("mlm", "extra:other"), registry=registry)
    assert plan.plugins == {"extra": "renaissance-plugin-extra 0.3"}
    assert plan.tasks["other"].name == "extra:other"


def test_a_task_for_one_towers_is_refused() -> None:
    registry = Registry([plugin("one", task("single", architectures=frozenset({"one-tower"})))])
    with pytest.raises(SpecError, match="The task 'single' does not work on two-tower models"):
        resolve(TOWERS, ("single",), registry=registry)


def test_a_plugin_that_failed_is_told_when_it_is_named() -> None:
    with pytest.raises(PluginError, match="The plugin 'gone'"):
        resolve(TOWERS, ("gone:x",), registry=Registry([Plugin("gone", "a_module_that_is_not_there", "dist", "1")]))


@pytest.mark.parametrize("describe", [lambda options: 1 // 0, lambda options: None])
def test_a_backbone_that_cannot_describe_itself_is_told_with_its_plugin(describe: Any) -> None:
    eye = BackboneEntry(name="eye", summary="", factory="x:y", modality="vision", describe=describe)
    with pytest.raises(PluginError, match=r"The plugin 'odd' cannot describe 'eye'.*report it to the plugin"):
        resolve("odd:eye + bert-base", registry=Registry([plugin("odd", eye)]))


# --- the canonical form -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        TOWERS,
        "vit-base(image_size=384) + bert-base[:6](dropout=0.0), frozen both, trainable vision, dual(width=64)",
        "tiny-vit + tiny-bert, random both, frozen text[:-1], lxmert(layers=2, width=32, heads=2)",
        "timm:resnet18@abc + transformers:org/model, random vision, frozen fusion, co-attention",
        "deit-tiny + electra-small, frozen text.embeddings, frozen vision[:3]",
        "timm:of_a_newer_timm + bert-base, frozen vision[:3], frozen vision[:-2]",
        f"{TOWERS}, lora(alpha=16, rank=4) both, trainable text[-1:], frozen fusion[:2]",
        f'{TOWERS}, bitfit vision, frozen text.norms[2:5], frozen text("*.query.*"), trainable text[4:]("*.bias")',
    ],
)
def test_the_canonical_spec_is_a_fixed_point(line: str) -> None:
    plan: Plan = resolve(line)
    again = resolve(plan.spec)
    assert again.spec == plan.spec
    assert again.rules == plan.rules
    assert parse_spec(format_spec(plan.spec)) == plan.spec
    assert (again.vision.options, again.text.options, again.fusion.options) == (
        plan.vision.options, plan.text.options, plan.fusion.options,
    )  # fmt: skip


def test_a_line_a_mapping_and_a_spec_give_one_plan() -> None:
    spec = parse_spec(TOWERS)
    assert resolve(TOWERS).spec == resolve(spec.model_dump(mode="json")).spec == resolve(spec).spec


def test_defaults_are_left_out_of_the_canonical_spec() -> None:
    plan = resolve(f"{TOWERS}, lxmert(layers=6, width=128)")
    assert plan.spec.fusion.options == {"width": 128}


def test_a_library_model_is_the_base_by_the_modality_that_can_be_one() -> None:
    plan = resolve("open-clip:ViT-B-32, one-tower, random encoder")
    assert isinstance(plan.spec, OneTowerSpec)
    assert plan.spec.modality == "vision"
    with pytest.raises(SpecError, match="'open-clip:RN50' cannot be the base of a one-tower model"):
        resolve("open-clip:RN50, one-tower, random encoder")
    with pytest.raises(SpecError, match="'open-clip:ViT-B-32' has no pretrained weights; say 'random encoder'"):
        resolve("open-clip:ViT-B-32, one-tower")


@pytest.mark.parametrize(
    ("line", "modality"),
    [
        ("transformers:bert, one-tower, random encoder", "text"),
        ("transformers:beit, one-tower, random encoder", "vision"),
        ("transformers:vit(patch_size=8), one-tower, random encoder", "vision"),
        ("transformers:clip, one-tower, random encoder", "vision"),
        ("transformers:org/model(patch_size=8), one-tower", "vision"),
        ("transformers:org/model(max_tokens=8), one-tower", "text"),
    ],
)
def test_a_name_that_stands_for_both_modalities_is_told_by_its_type_or_its_options(line: str, modality: str) -> None:
    plan = resolve(line)
    assert isinstance(plan, OneTowerPlan)
    assert plan.spec.modality == plan.base.entry.modality == modality


@pytest.mark.parametrize("fusion", ["text-cross-attention", "q-former"])
@pytest.mark.parametrize("blocks", ["shared", "inherited"])
@pytest.mark.parametrize("text", ["transformers:t5", "transformers:distilbert", "open-clip:ViT-B-32"])
def test_blocks_of_a_text_tower_that_do_not_run_in_halves_are_refused(text: str, blocks: str, fusion: str) -> None:
    with pytest.raises(
        SpecError, match=f"'{text}' has none that run so.*such as 'bert-base', or leave out text_blocks"
    ):
        resolve(f'tiny-vit + {text}, {fusion}(layers=2, heads=2, text_blocks="{blocks}"), random both')
