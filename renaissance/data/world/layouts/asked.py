"""Questions about the pictures of a split, in all languages, with the answers of the scene graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random

from renaissance.data.world.layouts.site import Figure, most_frequent, share
from renaissance.data.world.questions import Asked, QuestionKind, answer_to, ask, kind_of, plan_questions
from renaissance.data.world.worlds import Picture, Split, World


@dataclass(frozen=True, slots=True)
class Posed:
    """A question as data and in words by language. answer: in English, whatever the language."""

    picture: Picture
    number: int
    asked: Asked
    texts: Mapping[str, str]
    answer: str

    @property
    def kind(self) -> QuestionKind:
        """The type of its answer."""
        return kind_of(self.asked)


def pose(world: World, corpus: str, split: Split, pictures: Iterable[Picture] | None = None) -> list[Posed]:
    """Return the questions that a corpus asks about the pictures of a split."""
    found = []
    for picture in world.by_split[split] if pictures is None else pictures:
        random = world.random("questions", corpus, picture.number)
        for number, asked in enumerate(plan_questions(picture.scene, random)):
            answer = answer_to(asked, picture.scene)
            assert answer is not None, "a planned question has an answer"
            key = random.getrandbits(48)
            texts = {language: ask(asked, language, Random(key)) for language in world.languages}
            found.append(Posed(picture, number, asked, texts, answer))
    return found


def question_figure(
    train: list[Posed],
    posed: list[Posed],
    score: Callable[[Posed, str], float],
    metric: str,
    form: Callable[[Posed], str],
) -> Figure:
    """Return the scores of the best constant answer, and of the answer that is most frequent for the form in train."""
    habits = most_frequent((form(each), each.answer) for each in train)
    blind = sum(score(each, habits.get(form(each), "")) for each in posed)
    answers = Counter(each.answer for each in posed)
    chance = max((sum(score(each, answer) for each in posed) for answer in sorted(answers)), default=0.0)
    rule = "the most frequent answer to the kind of question in train"
    return Figure(metric, len(posed), share(chance, len(posed)), share(blind, len(posed)), rule)
