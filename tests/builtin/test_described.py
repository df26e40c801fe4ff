"""What `check` knows of library models without their libraries, from the table that ships."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from renaissance.api import UNKNOWN, Capabilities
from renaissance.builtin import open_clip_entries, timm_entries
from renaissance.errors import SpecError
from renaissance.resolve import resolve


def timm_facts(model: str, **options: Any) -> Capabilities:
    return timm_entries.describe(timm_entries.TimmOptions(model=model, **options))


def test_a_known_model_is_described_at_its_own_size() -> None:
    facts = timm_facts("vit_base_patch16_224")
    assert (facts.width, facts.depth, facts.layered, facts.class_token) == (768, 12, True, True)
    assert (facts.image_size, facts.patch_size, facts.grid, facts.size_step) == (224, 16, (14, 14), 16)
    assert (facts.positions, facts.base, facts.pretrained) == ("absolute", True, True)


def test_a_network_that_down_samples_lists_no_layers_and_is_no_base() -> None:
    facts = timm_facts("resnet50")
    assert (facts.width, facts.layered, facts.base, facts.grid) == (2048, False, False, (7, 7))
    assert "down-samples" in facts.refused


def test_the_tag_of_weights_leads_to_the_architecture_and_the_size_of_their_images() -> None:
    assert timm_facts("vit_base_patch16_224.augreg_in21k") == timm_facts("vit_base_patch16_224")
    tagged = timm_facts("convnext_tiny.fb_in22k_ft_in1k_384")
    assert (tagged.image_size, tagged.grid) == (384, (12, 12))


def test_of_weights_that_the_table_does_not_know_no_image_size_is_told() -> None:
    facts = timm_facts("vit_base_patch16_224.from_tomorrow")
    assert (facts.width, facts.image_size, facts.grid, facts.pretrained) == (768, UNKNOWN, UNKNOWN, UNKNOWN)


def test_an_image_size_changes_the_grid() -> None:
    facts = timm_facts("vit_base_patch16_224", image_size=384)
    assert (facts.image_size, facts.grid) == (384, (24, 24))


def test_a_grid_that_does_not_follow_from_the_size_is_left_to_the_build() -> None:
    assert timm_facts("resnet50", image_size=225).grid is UNKNOWN


def test_overrides_leave_numbers_to_the_build_and_the_kind_as_it_is() -> None:
    facts = timm_facts("resnet50", overrides={"channels": [8, 8, 16, 16]})
    assert (facts.width, facts.grid, facts.size_step) == (UNKNOWN, UNKNOWN, UNKNOWN)
    assert (facts.layered, facts.base, facts.pretrained) == (False, False, False)


def test_an_override_that_changes_the_class_leaves_all_to_the_build() -> None:
    facts = timm_facts("vit_base_patch16_224", overrides={"use_naflex": True})
    assert (facts.layered, facts.base) == (UNKNOWN, UNKNOWN)


@pytest.mark.parametrize("model", ["vit_bse_patch16_224", "of_a_newer_timm"])
def test_a_name_that_the_table_does_not_hold_is_checked_at_build(model: str) -> None:
    facts = timm_facts(model, layers=3)
    assert (facts.width, facts.depth, facts.layered, facts.base, facts.pretrained) == (
        UNKNOWN,
        3,
        UNKNOWN,
        UNKNOWN,
        UNKNOWN,
    )


def test_both_towers_of_an_open_clip_model_are_described() -> None:
    vision = open_clip_entries.describe_vision(
        open_clip_entries.OpenClipVisionOptions(model="ViT-B-32", revision="openai")
    )
    assert (vision.width, vision.depth, vision.grid, vision.pretrained) == (768, 12, (7, 7), True)
    text = open_clip_entries.describe_text(open_clip_entries.OpenClipTextOptions(model="ViT-B-32"))
    assert (text.width, text.depth, text.max_tokens, text.vocabulary) == (512, 12, 77, 49408)


def test_a_tag_that_open_clip_may_have_later_is_checked_at_build() -> None:
    options = open_clip_entries.OpenClipTextOptions(model="ViT-B-32", revision="from_tomorrow")
    assert open_clip_entries.describe_text(options).pretrained is UNKNOWN


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("timm:resnet50, one-tower", r"cannot be the base .*: it down-samples a grid .* Use one such as 'vit-base'"),
        ("timm:swin_tiny_patch4_window7_224, one-tower", "cannot be the base .*: it down-samples a grid"),
        (
            "timm:vit_base_patch16_224(image_size=230) + bert-base",
            r"multiples of 16 pixels, not 230; use image_size=224",
        ),
        ("timm:vit_base_patch16_224 + bert-base, frozen vision[:99]", "has 12 layers, .* count from -12 to 12"),
        ("timm:vit_base_patch16_224[:13] + bert-base", "has 12 layers, .* count from -12 to 12"),
        ("timm:vit_base_patch16_224(layers=13) + bert-base", "has 12 layers, not 13; use layers=12 or fewer"),
        ("timm:resnet50 + bert-base, frozen vision[:3]", "does not list its layers"),
        ("timm:resnet50 + bert-base, bridge", "reads layers of the towers, and 'timm:resnet50' does not list its own"),
        ("timm:test_vit + bert-base, random vision, bridge(layers=7)", r"has 6; say bridge\(layers=6\) or fewer"),
        ("open-clip:ViT-B-32 + open-clip:ViT-B-32, random both, frozen text[:99]", "has 12 layers"),
        ("vit-base + open-clip:roberta-ViT-B-32, random text", "Try 'transformers:roberta-base'"),
    ],
)
def test_what_a_known_backbone_cannot_do_is_refused_with_the_nearest_valid_choice(line: str, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        resolve(line)


def test_a_refusal_of_a_library_model_loads_no_library() -> None:
    code = (
        "import sys\nfrom renaissance.cli import main\n"
        "assert main(['check', 'timm:resnet50, one-tower']) == 2\n"
        "loaded = {'torch', 'timm', 'transformers', 'open_clip'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert "down-samples" in done.stderr
