from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import renaissance
from renaissance.api import Features, Joint, ModelFacts, Pairs
from renaissance.builtin.rank import Ranking
from renaissance.builtin.task_entries import RankOptions
from renaissance.errors import SpecError
from renaissance.resolve import resolve
from renaissance.toolkit.pairing import positives

FACTS = ModelFacts(vision=8, text=8, joint=16, fused_text=8, shared_space=False, tokenizer=None)


def encoded(images: int, texts: int) -> Any:
    class Inputs:
        vision = Features(torch.randn(images, 2, 8), torch.ones(images, 2, dtype=torch.bool))
        text = Features(torch.randn(texts, 3, 8), torch.ones(texts, 3, dtype=torch.bool))

    return Inputs()


def ranked(task: Ranking, batch: Any) -> Pairs:
    return task.pairs(encoded(len(batch.caption_keys), len(batch.text_keys)), batch, {})


@pytest.mark.parametrize("false_texts", [1, 3, 15])
def test_the_true_text_comes_first_and_the_others_are_different_ones_of_other_images(
    false_texts: int, tiny_model: Callable[..., Any], tiny_batch: Any
) -> None:
    batch = tiny_batch(tiny_model(("itm",)), 6)
    pairs = ranked(Ranking(RankOptions(false_texts=false_texts), model=FACTS), batch)
    assert pairs.targets is not None
    there, index = pairs.targets, pairs.index.view(6, -1, 2)
    assert there.sum(1).tolist() == [1 + min(false_texts, 5)] * 6
    assert torch.equal(index[:, 0], batch.pairs)
    belongs = positives(batch.caption_keys, batch.text_keys)[index[..., 0], index[..., 1]]
    assert belongs[:, 0].all()
    assert not (belongs[:, 1:] & there[:, 1:]).any()
    for row, exists in zip(index[..., 1], there, strict=True):
        assert len(set(row[exists].tolist())) == int(exists.sum())


def test_the_loss_is_that_of_a_naive_loop_and_its_gradient_is_right(
    tiny_model: Callable[..., Any], tiny_batch: Any
) -> None:
    batch = tiny_batch(tiny_model(("itm",)), 5)
    task = Ranking(RankOptions(false_texts=3), model=FACTS).double()
    pairs = ranked(task, batch)
    assert pairs.targets is not None
    pooled = torch.randn(len(pairs.index), 16, dtype=torch.float64, requires_grad=True)

    def loss(given: Tensor) -> Tensor:
        return task.loss(encoded(5, 5), Joint(pooled=given), pairs, batch).sum

    logits = task.predict(Joint(pooled=pooled)).tolist()
    naive = 0.0
    for row in range(5):
        known = [logits[row * 4 + k] for k in range(4) if pairs.targets[row, k]]
        naive += math.log(sum(math.exp(value - known[0]) for value in known))
    assert math.isclose(loss(pooled).item(), naive, rel_tol=1e-12)
    assert torch.autograd.gradcheck(loss, (pooled,))


def test_images_without_a_false_text_are_left_out(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    batch = tiny_batch(tiny_model(("itm",)), 3, captions=[("the same", "the same")] * 3)
    task = Ranking(RankOptions(), model=FACTS)
    pairs = ranked(task, batch)
    found = task.loss(encoded(3, 1), Joint(pooled=torch.randn(len(pairs.index), 16)), pairs, batch)
    assert (found.sum.item(), int(found.count)) == (0.0, 0)


def test_ranking_without_matching_is_refused_and_so_is_ranking_by_it_untrained(tiny_spec: Callable[..., str]) -> None:
    with pytest.raises(SpecError, match="begins as the head of 'itm'"):
        resolve(tiny_spec(), {"rank": {}})
    with pytest.raises(SpecError, match="score=rank orders by the head of 'rank'"):
        resolve(tiny_spec(), {"itm": {}, "retrieval": {"rerank": "all", "score": "rank"}})


def test_a_model_of_itm_is_fine_tuned_to_rank_from_the_head_of_itm(
    tiny_spec: Callable[..., str], tmp_path: Path, cache: Path
) -> None:
    common = {
        "data": {"kind": "world", "train": 8, "test": 6, "captions": 2, "image_size": 32},
        "batch": {"size": 4},
        "budget": {"steps": 1},
        "optimiser": {"lr": 1e-12},
    }

    def measured(score: str) -> dict[str, Any]:
        ranking = {"rerank": "all", "score": score}
        return {"tasks": {"itm": {}, "retrieval": ranking}, "untrained": False, "shuffled": False}

    first = {**common, "start": tiny_spec(), "tasks": {"itm": {}}, "evaluation": measured("itm")}
    before = renaissance.run(first, out=tmp_path / "itm")
    recipe = {
        **common,
        "start": {"model": str(before.folder), "surgery": {"add_tasks": ["rank"]}},
        "tasks": {"itm": {"weight": 0.5}, "rank": {}},
        "evaluation": measured("rank"),
    }
    run = renaissance.run(recipe, out=tmp_path / "run")
    itm, rank = (renaissance.from_pretrained(run.folder).tasks[name] for name in ("itm", "rank"))
    torch.testing.assert_close(rank.head.weight, itm.head.weight)
    by_itm, by_rank = (
        {row["name"]: row["value"] for row in each.scores["scores"] if row["task"] == "retrieval"}
        for each in (before, run)
    )
    assert by_rank == by_itm  # as good as nothing was learnt
    assert "full R@1" in by_rank
