from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.testing import assert_close

from renaissance.api import Features
from renaissance.data.captions import caption_key
from renaissance.data.collate import Collator, caption_keys, chosen_caption, image_batches, text_batches
from renaissance.data.readers.sources import FileImage
from renaissance.data.records import Record
from renaissance.data.sampling import sample_seed
from renaissance.errors import SampleError, SpecError
from renaissance.recipe.training import Augmentation
from renaissance.toolkit.images import ImageProcessor
from renaissance.toolkit.pairing import positives
from renaissance.toolkit.text import WordTokenizer

Processors = tuple[ImageProcessor, WordTokenizer]


@pytest.fixture
def processors(images: ImageProcessor, texts: WordTokenizer) -> Processors:
    return images, texts


def test_a_batch_pairs_each_image_with_a_caption_of_its_own(records: list[Record], processors: Processors) -> None:
    batch = Collator(*processors, seed=0)(records, 0)
    assert batch.images is not None
    assert batch.images.pixels.shape == (10, 3, 8, 8)
    assert batch.images.pixels.dtype == torch.uint8
    assert batch.pairs[:, 0].tolist() == list(range(10))
    assert batch.items.tolist() == list(range(10))
    assert batch.slots.tolist() == [0] * 10
    assert batch.ids == tuple(record.id for record in records)
    for image, text in batch.pairs.tolist():
        assert batch.text_keys[text] in batch.caption_keys[image]


def test_equal_captions_of_two_images_share_a_text(records: list[Record], processors: Processors) -> None:
    batch = Collator(*processors, seed=0)(records, 0)
    assert batch.texts.token_ids.shape[0] == 9
    assert batch.pairs[3, 1] == batch.pairs[7, 1]
    assert len(set(batch.text_keys.tolist())) == 9


def test_caption_keys_hold_all_captions_of_an_image_and_zeros(records: list[Record], processors: Processors) -> None:
    keys = Collator(*processors, seed=0)(records, 0).caption_keys
    assert keys.shape == (10, 2)
    assert keys.dtype == torch.int64
    assert keys[0].tolist() == [caption_key(caption) for caption in records[0].captions]
    assert keys[3].tolist() == [caption_key("a nice square"), 0]
    assert (keys[:, 0] > 0).all()


def test_every_caption_is_used_in_as_many_epochs_as_there_are(records: list[Record]) -> None:
    many = replace(records[0], captions=tuple(f"caption {number}" for number in range(5)))
    assert {chosen_caption(many, 3, epoch) for epoch in range(10, 15)} == set(many.captions)


def test_the_same_image_twice_is_encoded_once(records: list[Record], processors: Processors) -> None:
    other = replace(records[0], id="again", captions=("a green square",))
    batch = Collator(*processors, seed=0)([records[0], other, records[1]], 0)
    assert batch.images is not None
    assert len(batch.images.pixels) == 2
    assert batch.pairs[:, 0].tolist() == [0, 0, 1]


def test_an_image_has_one_key_in_every_batch_and_each_augmented_view_its_own(
    records: list[Record], processors: Processors
) -> None:
    other = replace(records[0], id="again", captions=("a green square",))
    plain, changed = (Collator(*processors, seed=0, augmentation=Augmentation(flip=flip)) for flip in (False, True))
    first, second = plain(records[:2], 0), plain([records[2], other], 1)
    assert first.image_keys[0] == second.image_keys[1]
    assert first.view_keys.tolist() == first.image_keys.tolist()
    assert len({*first.image_keys.tolist(), *second.image_keys.tolist()}) == 3
    views = changed([records[0], other], 0)
    assert views.image_keys.unique().tolist() == [int(first.image_keys[0])]
    assert len(views.view_keys.unique()) == 2
    assert views.view_keys[1] == changed([records[3], other], 0).view_keys[1]


def test_a_sample_is_the_same_whatever_is_in_the_batch_with_it(records: list[Record], processors: Processors) -> None:
    collator = Collator(*processors, seed=5, augmentation=Augmentation(crop=(0.2, 0.9), flip=True, randaugment=2))
    alone, together = collator(records[4:5], 2), collator(records, 2)
    assert alone.images is not None
    assert together.images is not None
    assert_close(alone.images.pixels[0], together.images.pixels[4], rtol=0, atol=0)
    assert alone.seeds[0] == together.seeds[4] == sample_seed(5, 2, "picture-4")


def test_a_caption_of_another_record_of_the_image_belongs_to_it(records: list[Record], processors: Processors) -> None:
    first, second = (replace(record, captions=(f"a square {n}",)) for n, record in enumerate(records[:2]))
    translated = replace(first, id="de 0", captions=("ein Quadrat", "eine Form"))
    batch = Collator(*processors, seed=0)([first, translated, second], 0)
    belongs = positives(batch.caption_keys, batch.text_keys)
    assert belongs.tolist() == [[True, True, False], [False, False, True]]
    assert batch.caption_keys[0].tolist() == [caption_key(text) for text in (*first.captions, *translated.captions)]


def test_in_evaluation_every_record_of_an_image_has_all_of_its_captions(records: list[Record]) -> None:
    translated = replace(records[0], id="de 0", captions=("ein Quadrat",))
    keys = caption_keys([records[0], records[1], translated])
    assert keys[0].tolist() == keys[2].tolist()
    assert keys[0].tolist() == [caption_key(text) for text in (*records[0].captions, "ein Quadrat")]
    assert caption_key("ein Quadrat") not in keys[1].tolist()


def test_a_batch_in_two_parts_has_the_pixels_of_the_whole(records: list[Record], processors: Processors) -> None:
    Image.linear_gradient("L").convert("RGB").save(records[0].image.name)
    shared = [replace(records[0], id=f"view {n}") for n in range(3)]
    collator = Collator(*processors, seed=5, augmentation=Augmentation(crop=(0.2, 0.5)))
    epochs = [0, 0, 4]

    def seen(rows: slice) -> Tensor:
        batch = collator(shared[rows], epochs[rows])
        assert batch.images is not None
        return batch.images.pixels[batch.pairs[:, 0]]

    whole = seen(slice(0, 3))
    assert torch.equal(whole, torch.cat([seen(slice(0, 1)), seen(slice(1, 3))]))
    assert len({pixels.numpy().tobytes() for pixels in whole}) == 3


def test_augmentation_differs_between_epochs(pictures: Path, records: list[Record], processors: Processors) -> None:
    collator = Collator(*processors, seed=5, augmentation=Augmentation(randaugment=2, magnitude=20))
    one, two = (collator(records, epoch).images for epoch in (0, 1))
    assert one is not None
    assert two is not None
    assert not torch.equal(one.pixels, two.pixels)


def test_a_bad_image_is_an_error_that_names_its_row(records: list[Record], processors: Processors) -> None:
    Path(records[2].image.name).write_bytes(b"<html>")
    with pytest.raises(SampleError, match=r"captions.jsonl, row 3: .*2.png"):
        Collator(*processors, seed=0)(records, 0)


def test_a_bad_image_is_left_out_and_told_never_replaced(records: list[Record], processors: Processors) -> None:
    Path(records[2].image.name).write_bytes(b"<html>")
    Path(records[5].image.name).unlink()
    batch = Collator(*processors, seed=0, on_bad_sample="skip")(records, 0)
    assert batch.ids == tuple(record.id for place, record in enumerate(records) if place not in (2, 5))
    assert batch.images is not None
    assert len(batch.images.pixels) == len(batch.pairs) == len(batch.caption_keys) == 8
    assert len(batch.skipped) == 2
    assert "row 3" in batch.skipped[0]
    assert "row 6" in batch.skipped[1]


def test_a_batch_of_bad_images_alone_is_an_error(records: list[Record], processors: Processors) -> None:
    Path(records[2].image.name).unlink()
    with pytest.raises(SampleError, match="No image of a batch of 1 can be used"):
        Collator(*processors, seed=0, on_bad_sample="skip")(records[2:3], 0)


def test_with_a_store_no_image_file_is_read(records: list[Record], texts: WordTokenizer) -> None:
    def stored(rows: list[Record]) -> Features:
        return Features(torch.arange(len(rows)).float().view(-1, 1, 1), torch.ones(len(rows), 1, dtype=torch.bool))

    gone = [replace(record, image=FileImage(f"/nowhere/{record.id}.png")) for record in records]
    batch = Collator(None, texts, seed=0, stored_vision=stored, stored_text=stored)(gone, 0)  # type: ignore[arg-type]
    assert batch.images is None
    assert batch.stored_vision is not None
    assert batch.stored_text is not None
    assert len(batch.stored_vision.tokens) == 10
    assert len(batch.stored_text.tokens) == 9


def test_a_collator_without_a_source_of_images_is_refused(processors: Processors) -> None:
    with pytest.raises(SpecError, match="needs the preprocessing of images"):
        Collator(None, processors[1], seed=0)
    with pytest.raises(SpecError, match=r"augmentation\.views says, and it is not set"):
        Collator(*processors, seed=0, augmentation=Augmentation(flip=True), stored_vision=lambda rows: None)  # type: ignore[arg-type,return-value]


def test_evaluation_reads_everything_in_order_once(records: list[Record], processors: Processors) -> None:
    images, texts = processors
    parts = list(image_batches(records, images, 4))
    assert [len(part.pixels) for part in parts] == [4, 4, 2]
    whole = next(iter(image_batches(records, images, 100)))
    assert_close(torch.cat([part.pixels for part in parts]), whole.pixels, rtol=0, atol=0)
    assert [len(part.token_ids) for part in text_batches(["a", "b", "c"], texts, 2)] == [2, 1]
    assert list(text_batches([], texts, 2)) == []
