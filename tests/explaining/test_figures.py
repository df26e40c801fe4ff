"""Shares, similarity, drift, probes and the pointing game: what theory says of them, on cases where it is known."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from renaissance.errors import CapabilityError, DataError
from renaissance.explaining.drift import drift, relative_distance, weight_drift
from renaissance.explaining.layers import layer_features, of_modality
from renaissance.explaining.outputs import plain_copy
from renaissance.explaining.pairs import Pair, world_labelled, world_pairs, world_pointed
from renaissance.explaining.pointing import cropped, inside, point_of, pointing, pointing_summary
from renaissance.explaining.probing import probe_layers
from renaissance.explaining.shares import modality_shares
from renaissance.explaining.similarity import cka, cka_matrix, hsic
from renaissance.pretrained import Model
from renaissance.toolkit.images import ImageProcessor
from tests.explaining.models import LINES, TEXT, made

# --- modality shares --------------------------------------------------------------------------------------------------


def numbered(count: int) -> list[Pair]:
    return [Pair(str(number), Image.new("RGB", (1, 1), (number, 0, 0)), "x" * (number + 1)) for number in range(count)]


def of_picture(pictures: Sequence[Image.Image]) -> Tensor:
    return torch.tensor([float(np.asarray(picture)[0, 0, 0]) ** 2 for picture in pictures], dtype=torch.float64)


def of_text(texts: Sequence[str]) -> Tensor:
    return torch.tensor([3.0 * len(text) for text in texts], dtype=torch.float64)


def test_an_additive_output_gives_each_modality_what_it_alone_changes() -> None:
    pairs = numbered(9)
    found = modality_shares(lambda pictures, texts: of_picture(pictures) + of_text(texts), pairs, seed=1)
    torch.testing.assert_close(found.image, found.own - found.foreign_image)
    torch.testing.assert_close(found.text, found.own - found.foreign_text)
    torch.testing.assert_close(found.image + found.text, found.own - found.foreign)


def test_an_output_of_one_modality_owes_nothing_to_the_other() -> None:
    image_only = modality_shares(lambda pictures, texts: of_picture(pictures), numbered(9))
    text_only = modality_shares(lambda pictures, texts: of_text(texts), numbered(9))
    assert image_only.summary()["image_share"] == 1
    assert image_only.summary()["lost_without_text"] == 0
    assert text_only.summary()["text_share"] == 1


def test_an_output_that_is_right_where_both_belong_together_owes_half_to_each() -> None:
    def both(pictures: Sequence[Image.Image], texts: Sequence[str]) -> Tensor:
        return (of_picture(pictures).sqrt() + 1 == of_text(texts) / 3).double()

    summary = modality_shares(both, numbered(9)).summary()
    assert summary["image_share"] == summary["text_share"] == 0.5
    assert summary["shapley_image"] == summary["shapley_text"] == 0.5


def test_what_is_exchanged_is_of_other_images_and_texts_and_not_a_pair_itself() -> None:
    pairs = numbered(3)
    seen: list[tuple[list[int], list[int]]] = []

    def note(pictures: Sequence[Image.Image], texts: Sequence[str]) -> Tensor:
        seen.append(([int(np.asarray(one)[0, 0, 0]) for one in pictures], [len(text) - 1 for text in texts]))
        return torch.zeros(len(texts), dtype=torch.float64)

    modality_shares(note, pairs)
    foreign = seen[3]
    assert all(len({place, image, text}) == 3 for place, (image, text) in enumerate(zip(*foreign, strict=True)))
    with pytest.raises(DataError, match="three different samples"):
        modality_shares(note, pairs[:2])
    with pytest.raises(DataError, match="three different samples"):
        modality_shares(note, [Pair(pair.image_id, pair.picture, "same") for pair in pairs])


# --- CKA --------------------------------------------------------------------------------------------------------------


def test_cka_is_one_with_itself_and_blind_to_rotation_scale_and_shift() -> None:
    x = torch.randn(60, 12, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64)).Q
    assert cka(x, x) == pytest.approx(1)
    assert cka(x, 3 * x @ rotation + 7) == pytest.approx(1)
    assert cka(x, x @ torch.diag(torch.arange(1, 13).double())) < 0.99


def test_cka_is_symmetric_and_about_zero_for_unrelated_features_of_any_width() -> None:
    x, y = torch.randn(200, 400), torch.randn(200, 300)
    assert cka(x, y) == pytest.approx(cka(y, x))
    assert abs(cka(x, y)) < 0.05  # the biased estimator gives 0.6 here
    assert math.isnan(cka(x, torch.ones(200, 3)))


def test_hsic_is_the_mean_over_all_quadruples() -> None:
    k, l = (gram @ gram.T for gram in torch.randn(2, 6, 3, dtype=torch.float64))  # noqa: E741
    total, count = 0.0, 0
    for i in range(6):
        for j in range(6):
            for q in range(6):
                for r in range(6):
                    if len({i, j, q, r}) == 4:
                        total += float(k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q]))
                        count += 1
    assert float(hsic(k, l)) == pytest.approx(total / count)


def test_minibatches_estimate_the_same() -> None:
    x = torch.randn(512, 8, dtype=torch.float64)
    y = x @ torch.randn(8, 8, dtype=torch.float64) + torch.randn(512, 8, dtype=torch.float64)
    assert cka(x, y, batch=64) == pytest.approx(cka(x, y, batch=512), abs=0.02)
    assert cka_matrix({"a": x, "b": y}, {"a": x})[1][0] == pytest.approx(cka(y, x))
    with pytest.raises(DataError, match="at least 4 samples"):
        cka(x[:3], y[:3])


# --- layers and drift -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lxmert", "one-tower on text"])
def test_padding_changes_no_layer(name: str, pairs: list[Pair]) -> None:
    own = plain_copy(made(LINES[name]).assembly)
    pictures = [pairs[0].picture, pairs[1].picture]
    alone = layer_features(own, pictures[:1], ["a cup"])
    beside = layer_features(own, pictures, ["a cup", "a very long text about many things in one picture"])
    for layer, features in alone.items():
        torch.testing.assert_close(beside[layer][:1], features, rtol=1e-4, atol=1e-5)


def test_layers_have_the_names_that_freezing_uses(pairs: list[Pair]) -> None:
    two = layer_features(plain_copy(made(LINES["lxmert"]).assembly), [pairs[0].picture], [pairs[0].text])
    one = layer_features(plain_copy(made(LINES["one-tower on text"]).assembly), [pairs[0].picture], [pairs[0].text])
    tower = ["embeddings", "0", "1", "final"]
    assert list(two) == [*(f"vision.{name}" for name in tower), *(f"text.{name}" for name in tower), "fusion.final"]
    assert list(one) == [f"{part}.{name}" for part in ("vision", "text", "encoder") for name in tower]
    assert list(of_modality(one, "text")) == [f"text.{name}" for name in tower]


def test_frozen_layers_have_not_moved_and_trained_ones_have(model: Model, pairs: list[Pair]) -> None:
    start, trained = plain_copy(model.assembly), plain_copy(model.assembly)
    with torch.no_grad():
        for name, parameter in trained.encoder.named_parameters():
            if name.startswith(("text.blocks.1", "fusion.layers")):
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    pictures, texts = [pair.picture for pair in pairs], [pair.text for pair in pairs]
    layers = layer_features(trained, pictures, texts), layer_features(start, pictures, texts)
    found = {row.layer: row for row in drift(trained, start, layers)}
    still = ["vision.embeddings", "vision.0", "vision.1", "vision.final", "text.embeddings", "text.0"]
    assert [(found[name].weights, found[name].cka, found[name].cosine) for name in still] == [(0, 0, 1)] * len(still)
    assert found["text.1"].weights == pytest.approx(0.1 / 0.14, rel=0.5)
    assert 0 < (found["text.1"].cka or 0) < 1
    assert (found["text.1"].cosine or 1) < 1
    assert (found["fusion.0"].weights or 0) > 0
    assert found["fusion.0"].cka is None  # what is inside of the head is not read


def test_relative_distance_is_that_of_all_tensors_together() -> None:
    start = [torch.tensor([3.0]), torch.tensor([4.0, 0.0])]
    assert relative_distance([torch.tensor([3.0]), torch.tensor([4.0, 5.0])], start) == 1
    assert relative_distance(copy.deepcopy(start), start) == 0


def test_drift_between_models_that_are_built_otherwise_means_nothing(model: Model) -> None:
    other = made(LINES["one-tower on text"])
    with pytest.raises(CapabilityError, match="differ in number or shape between the two models"):
        weight_drift(model.encoder, other.encoder)


def test_a_tower_without_blocks_has_its_output_and_all_its_weights(pairs: list[Pair]) -> None:
    line = f"timm:test_efficientnet(image_size=64) + {TEXT}, random both, lxmert(layers=1, width=32, heads=2)"
    own = plain_copy(made(line).assembly)
    layers = layer_features(own, [pairs[0].picture], [pairs[0].text])
    assert list(of_modality(layers, "vision")) == ["vision.final"]
    assert weight_drift(own.encoder, own.encoder)["vision.all"] == 0


# --- probes -----------------------------------------------------------------------------------------------------------


def test_a_planted_linear_label_is_read_and_a_shuffled_one_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(600, 10, generator=generator)
    planted = features @ torch.randn(10, 3, generator=generator)
    labels = [("red", "green", "blue")[int(place)] for place in planted.argmax(1)]
    noise = torch.randn(600, 10, generator=generator)
    read, unread = probe_layers({"planted": 100 * features + 5, "noise": noise}, "colour", labels)
    assert read.accuracy > 88
    assert read.interval[0] < read.accuracy < read.interval[1]
    assert read.shuffled < 45
    assert unread.accuracy < 48
    assert (read.train, read.test, read.classes) == (400, 200, 3)
    assert 30 < read.majority < 50


def test_more_channels_than_samples_are_no_lookup_table() -> None:
    features = torch.randn(90, 500)
    (found,) = probe_layers({"wide": features}, "coin", ["heads", "tails"] * 45)
    assert 20 < found.accuracy < 80


def test_probes_of_too_little_are_refused() -> None:
    with pytest.raises(DataError, match="needs at least 12 samples of two classes, and there are 20 of 1"):
        probe_layers({"x": torch.randn(20, 3)}, "colour", ["red"] * 20)


def test_texts_tell_of_colours_and_not_of_the_background(own_text: dict[str, Tensor]) -> None:
    given = world_labelled(180, 0)
    colour = probe_layers(own_text, "colour", given.labels["colour"])[0]
    background = probe_layers(own_text, "background", given.labels["background"])[0]
    assert colour.accuracy > 85
    assert background.accuracy < 50


@pytest.fixture(scope="module")
def own_text(model: Model) -> dict[str, Tensor]:
    given = world_labelled(180, 0)
    return of_modality(layer_features(plain_copy(model.assembly), given.pictures, given.texts), "text")


# --- pointing, and what is pointed at ---------------------------------------------------------------------------------


def test_a_map_points_at_the_middle_of_its_greatest_patch() -> None:
    patches = torch.zeros(4, 4)
    patches[1, 2] = 1
    assert point_of(patches) == (0.625, 0.375)
    assert pointing(patches, (0.5, 0.25, 0.25, 0.25)).hit
    found = pointing(patches, (0.0, 0.0, 0.25, 0.5), [(0.6, 0.3, 0.1, 0.1)])
    assert (found.hit, found.other, found.chance, found.area) == (False, 1.0, 2 / 16, 0.125)


def test_boxes_go_with_the_middle_that_a_processor_keeps() -> None:
    picture = np.full((128, 128, 3), 255, dtype=np.uint8)
    picture[40:72, 24:56] = 0
    processor = ImageProcessor((64, 64), crop=0.5, mean=(0.5,) * 3, std=(0.5,) * 3)
    rows, columns = np.nonzero(processor([Image.fromarray(picture)]).pixels[0, 0].numpy() < 128)
    left, top, width, height = cropped((24 / 128, 40 / 128, 32 / 128, 32 / 128), processor.crop)
    assert (left, top, width, height) == (-8 / 64, 8 / 64, 32 / 64, 32 / 64)
    assert (columns.min(), columns.max() + 1) == (0, 64 * (left + width))
    assert (rows.min(), rows.max() + 1) == (64 * top, 64 * (top + height))
    assert cropped((0.1, 0.2, 0.3, 0.4), 1.0) == (0.1, 0.2, 0.3, 0.4)


def test_random_maps_hit_as_often_as_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = [one.named for one in world_pointed(300, 1)]
    found = pointing_summary([pointing(torch.rand(8, 8, generator=generator), box) for box in boxes])
    low, high = found["above_chance_interval"]
    assert low < 0 < high
    assert found["chance"] == pytest.approx(found["box_area"], abs=2)
    with pytest.raises(DataError, match="there are none"):
        pointing_summary([])


def test_captions_of_the_pointing_game_name_one_thing_of_several() -> None:
    for one in world_pointed(20, 0):
        assert one.others
        middle = one.named[0] + one.named[2] / 2, one.named[1] + one.named[3] / 2
        assert not any(inside(middle, other) for other in one.others)


def test_the_world_is_drawn_again_from_its_seed() -> None:
    first, again, other = (world_pairs(5, seed) for seed in (3, 3, 4))
    assert [pair.text for pair in first] == [pair.text for pair in again] != [pair.text for pair in other]
    assert all(one.picture.tobytes() == two.picture.tobytes() for one, two in zip(first, again, strict=True))
