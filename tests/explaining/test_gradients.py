"""Integrated gradients: they add up to the change of the output, and find what an output depends on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer as WordPiece
from tokenizers import normalizers
from torch import Tensor, nn

from renaissance import builtin
from renaissance.api import Features, Joint, TextInput, VisionInput
from renaissance.assemble import Assembly
from renaissance.errors import SampleError, SpecError
from renaissance.explaining.gradients import Attribution, check_complete, integrated_gradients
from renaissance.explaining.outputs import Explained, explained_output, plain_copy, scores
from renaissance.explaining.pairs import Pair, world_pointed
from renaissance.explaining.pointing import pointing, pointing_summary
from renaissance.explaining.tokens import by_word, patch_grid, words_of
from renaissance.toolkit.text import WordTokenizer
from tests.explaining.models import LINES, VISION, made

ITM = Explained("itm")
OPEN_CLIP_TEXT = 'open-clip:ViT-B-32(overrides={"width": 32, "layers": 2, "heads": 2, "embed_dim": 24})'


def inputs(own: Assembly, pair: Pair) -> tuple[VisionInput, TextInput]:
    return own.encoder.vision.processor([pair.picture]), own.encoder.text.processor([pair.text])


@pytest.mark.parametrize("task", ["itm", "itc"])
@pytest.mark.parametrize("name", ["lxmert", "merged-attention", "one-tower on vision", "one-tower on text"])
def test_attributions_add_up_to_the_change_of_the_output(name: str, task: str, pairs: list[Pair]) -> None:
    own = plain_copy(made(LINES[name]).assembly)
    output = Explained(task)
    found = integrated_gradients(own, output, *inputs(own, pairs[0]))
    assert found.output == pytest.approx(
        scores(own, output, [pairs[0].picture], [pairs[0].text]).item(), rel=1e-4, abs=1e-5
    )
    assert found.total == pytest.approx(found.change, rel=0.02, abs=2e-4)
    assert found.total - found.change == pytest.approx(found.delta, abs=1e-4)
    assert found.patches(4, 4).sum() == pytest.approx(float(found.pixels.sum()))


def test_towers_that_take_no_embeddings_are_attributed_at_their_table_of_words(pairs: list[Pair]) -> None:
    own = plain_copy(made(f"{VISION} + {OPEN_CLIP_TEXT}, random both, lxmert(layers=1, width=32, heads=2)").assembly)
    found = integrated_gradients(own, ITM, *inputs(own, pairs[0]))
    assert found.tokens[1:-1].abs().min() > 0
    assert found.tokens[0] == found.tokens[-1] == 0
    words = words_of(own.encoder.text.processor, pairs[0].text)
    assert (words[0].start, words[-1].stop) == (1, len(found.tokens) - 1)


def test_a_label_of_a_classification_is_attributed(pairs: list[Pair]) -> None:
    own = plain_copy(made(LINES["lxmert"], "visual-entailment").assembly)
    output = explained_output(own, label="neutral")
    found = integrated_gradients(own, output, *inputs(own, pairs[0]))
    assert output.task == "visual-entailment"
    assert found.total == pytest.approx(found.change, rel=0.02, abs=2e-4)
    with pytest.raises(SpecError, match="has 3 labels; say which one"):
        explained_output(own)


def test_attributions_that_do_not_add_up_are_refused_with_the_steps_to_take(own: Assembly, pairs: list[Pair]) -> None:
    found = integrated_gradients(own, ITM, *inputs(own, pairs[0]))
    check_complete(found)
    for wrong in (replace(found, pixels=-found.pixels), replace(found, tokens=found.tokens + 1.0)):
        with pytest.raises(SpecError, match=f"Raise the steps from {found.steps} to {4 * found.steps}"):
            check_complete(wrong)
    with pytest.raises(SpecError, match="add up to nan"):
        check_complete(Attribution(found.pixels * torch.nan, found.tokens, 1.0, 0.0, 8, 0.0))


def test_padding_changes_no_attribution(own: Assembly, pairs: list[Pair]) -> None:
    images, texts = inputs(own, pairs[0])
    blank = torch.full((1, 5), own.encoder.text.processor.facts.pad_id)
    padded = TextInput(torch.cat((texts.token_ids, blank), 1), torch.cat((texts.mask, torch.zeros(1, 5).bool()), 1))
    plain, more = integrated_gradients(own, ITM, images, texts), integrated_gradients(own, ITM, images, padded)
    torch.testing.assert_close(more.pixels, plain.pixels, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(more.tokens[:-5], plain.tokens, rtol=1e-4, atol=1e-6)
    assert not more.tokens[-5:].any()


def test_special_tokens_stay_in_the_baseline_and_get_nothing(own: Assembly, pairs: list[Pair]) -> None:
    found = integrated_gradients(own, ITM, *inputs(own, pairs[0]), baseline="white")
    assert found.tokens[0] == found.tokens[-1] == 0


# --- a model whose logit depends on one patch and one word ----------------------------------------------------------


class Planted(nn.Module):
    """Looks at one patch of a grid of 4 x 4, and at the token at one place."""

    def __init__(self, encoder: Any, patch: int, place: int) -> None:
        super().__init__()
        self.vision, self.text, self.patch, self.place = encoder.vision, encoder.text, patch, place
        self.words = nn.Embedding(encoder.text.processor.facts.vocabulary, 8)

    def encode_vision(self, images: VisionInput) -> Features:
        pixels = self.vision.processor.normalise(images.pixels)
        tokens = nn.functional.avg_pool2d(pixels, 8).flatten(2).transpose(1, 2)  # [V, 16, 3]
        return Features(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))

    def encode_text(self, texts: TextInput) -> Features:
        return Features(self.words(texts.token_ids), texts.mask)

    def fuse(self, vision: Features, text: Features, outputs: object, slots: object = None) -> Joint:
        seen, read = vision.tokens[:, self.patch].square().sum(-1), text.tokens[:, self.place].square().sum(-1)
        return Joint(pooled=torch.stack((seen, read), dim=-1))


class SumOfBoth(nn.Module):
    def predict(self, joint: Joint) -> Tensor:
        assert joint.pooled is not None
        return joint.pooled.sum(-1)


def planted(own: Assembly, patch: int, place: int) -> Assembly:
    assembly: Any = Assembly(own.plan, Planted(own.encoder, patch, place), nn.ModuleDict({"itm": SumOfBoth()}))  # type: ignore[arg-type]  # a stand-in for an encoder
    found: Assembly = assembly.eval()
    return found


def test_the_planted_patch_and_word_get_all_of_it(own: Assembly, pairs: list[Pair]) -> None:
    hand_built = planted(own, patch=6, place=3)
    found = integrated_gradients(hand_built, ITM, *inputs(hand_built, pairs[1]))
    patches = found.patches(4, 4).flatten()
    words = by_word(found.tokens, words_of(own.encoder.text.processor, pairs[1].text))
    assert patches.argmax() == 6
    assert patches.abs().sum() == pytest.approx(float(patches[6].abs()))
    assert words.abs().argmax() == 2
    assert found.total == pytest.approx(found.change, rel=1e-3)


def test_a_model_that_looks_where_the_named_thing_is_wins_the_pointing_game(own: Assembly) -> None:
    points = []
    for one in world_pointed(60, 0):
        left, top, width, height = one.named
        middles = [((place % 4 + 0.5) / 4, (place // 4 + 0.5) / 4) for place in range(16)]
        within = [
            place
            for place, (across, down) in enumerate(middles)
            if left < across < left + width and top < down < top + height
        ]
        if within:
            hand_built = planted(own, within[0], 1)
            found = integrated_gradients(hand_built, ITM, *inputs(hand_built, one.pair))
            points.append(pointing(found.patches(4, 4), one.named, one.others))
    summary = pointing_summary(points)
    assert summary["samples"] > 30
    assert summary["hits"] == 100
    assert summary["other_things"] == 0
    assert 0 < summary["chance"] < 30


# --- words and patches -----------------------------------------------------------------------------------------------


def test_each_word_has_its_tokens_and_special_tokens_have_none(own: Assembly) -> None:
    processor = own.encoder.text.processor
    words = words_of(processor, "an extraordinarily   turquoise zyzzyva")
    given = processor(["an extraordinarily turquoise zyzzyva"])
    assert [word.text for word in words] == ["an", "extraordinarily", "turquoise", "zyzzyva"]
    assert words[0].start == 1
    assert [one.stop for one in words[:-1]] == [other.start for other in words[1:]]
    assert words[-1].stop == given.mask.sum() - 1


def test_a_prefix_that_the_model_puts_before_each_text_is_of_no_word(own: Assembly) -> None:
    plain = own.encoder.text.processor
    tokenizer = WordPiece.from_str((Path(builtin.__file__).parent / "wordpiece" / "tokenizer.json").read_text())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("red red "), tokenizer.normalizer])
    prefixed = WordTokenizer(tokenizer, replace(plain.facts, max_tokens=12))
    text = "an extraordinarily turquoise zyzzyva"
    shifted = [(word.text, word.start - 2, word.stop - 2) for word in words_of(prefixed, text[:30])]
    assert shifted == [(word.text, word.start, word.stop) for word in words_of(plain, text[:30])]
    with pytest.raises(SampleError, match="more than the 12 tokens"):
        words_of(prefixed, f"{text} {text}")


def test_a_text_that_the_model_cannot_read_whole_is_refused(own: Assembly) -> None:
    # cut between words, and within one
    for text in ("snow " * 80, "snow " * 60 + "extraordinarily"):
        with pytest.raises(SampleError, match="tokens that the model reads"):
            words_of(own.encoder.text.processor, text)
    with pytest.raises(SampleError, match="is empty"):
        words_of(own.encoder.text.processor, "  ")


@pytest.mark.parametrize(("name", "prefix"), [("lxmert", 1), ("one-tower on text", 1)])
def test_the_grid_is_that_of_the_patches(name: str, prefix: int, pairs: list[Pair]) -> None:
    own = plain_copy(made(LINES[name]).assembly)
    assert patch_grid(own, own.encoder.vision.processor([pairs[0].picture])) == (prefix, 4, 4)


def test_pixels_that_patches_share_are_divided() -> None:
    found = Attribution(torch.arange(49.0).double().reshape(7, 7), torch.zeros(3), 0.0, 0.0, 1, 0.0)
    assert found.patches(2, 2).sum() == pytest.approx(float(found.pixels.sum()))
    assert found.patches(2, 2)[0, 0] < found.patches(2, 2)[1, 1]
