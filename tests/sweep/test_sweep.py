from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.sweep import open_clip_cases, timm_cases, transformers_text_cases, transformers_vision_cases
from tests.sweep.cases import Case, run

LISTS = {
    "timm": timm_cases.CASES,
    "transformers text": transformers_text_cases.CASES,
    "transformers vision": transformers_vision_cases.CASES,
    "open_clip": open_clip_cases.CASES,
}
CASES = tuple(case for cases in LISTS.values() for case in cases)
NAMED = (
    "ViT",
    "DeiT",
    "EVA",
    "Swin",
    "MaxViT",
    "ConvNeXt",
    "ResNet",
    "EfficientNet",
    "MobileNetV3",
    "PVTv2",
    "CaiT",
    "NaFlexViT",
)
# one of each way in which a timm model gives its tokens, and the fastest of the other libraries
SAMPLE_FAMILIES = (
    "ViT",
    "DeiT distilled",
    "EVA",
    "BEiT",
    "Swin",
    "ConvNeXt",
    "MobileNetV3",
    "CaiT",
    "NaFlexViT",
    "MobileViT",
    "CoaT",
)
FIRST = tuple(cases[0] for cases in LISTS.values() if cases[0].family not in SAMPLE_FAMILIES)
SAMPLE = tuple(case for case in timm_cases.CASES if case.family in SAMPLE_FAMILIES) + FIRST


def name_of(case: Case) -> str:
    return f"{case.modality}-{case.name}-{case.family}"


def families(cases: Iterable[Case]) -> set[str]:
    return {case.family for case in cases if case.refused is None}


@pytest.mark.parametrize("case", SAMPLE, ids=name_of)
def test_a_sample_of_the_zoo_passes(case: Case) -> None:
    assert bool(run(case)) == (case.refused is None)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case not in SAMPLE], ids=name_of)
def test_the_rest_of_the_zoo_passes(case: Case) -> None:
    assert bool(run(case)) == (case.refused is None)


@pytest.mark.parametrize(
    ("cases", "least"), [("timm", 40), ("transformers text", 20), ("transformers vision", 15), ("open_clip", 5)]
)
def test_as_many_families_pass_as_were_promised(cases: str, least: int) -> None:
    assert len(families(LISTS[cases])) >= least


@pytest.mark.parametrize("cases", LISTS)
def test_at_most_a_tenth_is_refused(cases: str) -> None:
    refused = [case.name for case in LISTS[cases] if case.refused is not None]
    assert 10 * len(refused) <= len(LISTS[cases]), refused


def test_the_named_families_are_all_there() -> None:
    assert set(NAMED) <= families(timm_cases.CASES)


def test_every_case_is_of_a_real_architecture_and_listed_once() -> None:
    names = [name_of(case) for case in CASES]
    assert sorted(set(names)) == sorted(names)
    assert not [name for name in names if ":test_" in name]
