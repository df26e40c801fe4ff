"""English: articles by sound, plurals; adjectives do not agree."""

from __future__ import annotations

from renaissance.data.world.languages.features import Adjective, Case, Language, NounPhrase, Word

NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}


def _inflect(phrase: NounPhrase, case: Case) -> str:
    """Put a noun phrase into words; English nouns have no cases."""
    head = phrase.head.plural if phrase.plural else phrase.head.singular
    before = [adjective.forms[0] for adjective in phrase.adjectives if adjective.place != "after"]
    after = [adjective.forms[0] for adjective in phrase.adjectives if adjective.place == "after"]
    words = [*before, head, *after]
    match phrase.determiner:
        case "a" if not phrase.plural:
            words.insert(0, "an" if words[0][0] in "aeiou" else "a")
        case "the" | "no":
            words.insert(0, phrase.determiner)
        case "number":
            words.insert(0, NUMBERS.get(phrase.number, "one"))
    if phrase.after:
        words.append(phrase.after)
    return " ".join(words)


def _agree(adjective: Adjective, phrase: NounPhrase) -> str:
    return adjective.forms[0]


def _fixed(*words: str) -> tuple[Adjective, ...]:
    return tuple(Adjective((word,)) for word in words)


ENGLISH = Language(
    code="en",
    nouns={
        "circle": (Word("circle", "circles"),),
        "square": (Word("square", "squares"),),
        "triangle": (Word("triangle", "triangles"),),
        "star": (Word("star", "stars"),),
        "heart": (Word("heart", "hearts"),),
        "cross": (Word("cross", "crosses"),),
        "diamond": (Word("diamond", "diamonds"),),
        "shape": (Word("shape", "shapes"),),
        "thing": (Word("object", "objects"),),
        "background": (Word("background", "backgrounds"),),
    },
    adjectives={
        **{colour: _fixed(colour) for colour in ("red", "green", "blue", "yellow", "purple", "orange", "pink")},
        **{name: _fixed(name) for name in ("turquoise", "white", "light grey", "dark grey", "black")},
        "small": (*_fixed("small"), Adjective(("little",), "before")),
        "large": _fixed("large", "big"),
        "plain": _fixed("plain"),
        "striped": (*_fixed("striped", "striped"), Adjective(("with stripes",), "after")),
        "dotted": (*_fixed("dotted", "dotted"), Adjective(("with dots",), "after")),
    },
    rules={
        "opening": (
            "{x}",
            "{x}",
            "{x}",
            "there {x|is|are} {x}",
            "a picture of {x}",
            "a drawing of {x}",
            "here {x|is|are} {x}",
            "this shows {x}",
            "one can see {x}",
        ),
        "ground": ("{x} on {p>ground}", "{x} on a {ground}"),
        "bare": ("{x}",),
        "list": ("{a}, {x}",),
        "and": ("{x} and {y}",),
        "chain": ("{x}, and {y}",),
        "left of": ("left of {b}", "to the left of {b}"),
        "right of": ("right of {b}", "to the right of {b}"),
        "above": ("above {b}", "over {b}"),
        "below": ("below {b}", "under {b}"),
        "inside": ("inside {b}", "within {b}"),
        "around": ("around {b}",),
        "larger": ("larger than {b}", "that is larger than {b}", "bigger than {b}"),
        "smaller": ("smaller than {b}", "that is smaller than {b}"),
        "is larger": ("larger than {b}", "bigger than {b}"),
        "is smaller": ("smaller than {b}",),
        **{f"at {place}": (f"at the {place}", f"in the {place} corner") for place in ("top left", "top right")},
        **{f"at {place}": (f"at the {place}", f"in the {place} corner") for place in ("bottom left", "bottom right")},
        **{f"at {place}": (f"at the {place}",) for place in ("top", "bottom")},
        **{f"at {place}": (f"at the {place}", f"on the {place}") for place in ("left", "right")},
        "at middle": ("in the middle", "in the centre"),
        "most left": ("furthest to the left",),
        "most right": ("furthest to the right",),
        "most top": ("nearest the top",),
        "most bottom": ("nearest the bottom",),
        "count": ("there {a|is|are} exactly {a}", "the picture shows exactly {a}"),
        "absent": ("there is {a}", "the picture shows {a}"),
        "exists?": ("Is there {a}?", "Can you see {a}?", "Does the picture show {a}?"),
        "predicate?": ("Is {a} {p>a}?",),
        "stands?": ("Is {a} {r}?",),
        "compares?": ("Is {a} {r}?",),
        "how many?": ("How many {a} are there?", "How many {a} can you see?"),
        "colour?": ("What colour is {a}?", "What is the colour of {a}?"),
        "shape?": ("What shape is {a}?", "What is the shape of {a}?"),
        "size?": ("Is {a} small or large?", "Is {a} large or small?"),
        "texture?": ("Is {a} plain, striped or dotted?",),
        "side?": ("Is {a} at the left or at the right?", "Is {a} on the left or on the right of the picture?"),
        "both": ("Both pictures show {a}.", "There is {a} in both pictures."),
        "one": ("Exactly one of the pictures shows {a}.", "One picture shows {a}, and the other does not."),
        "neither": ("Neither picture shows {a}.", "Neither of the pictures shows {a}."),
        "some": ("At least one of the pictures shows {a}.",),
        "left picture": ("The left picture shows {a}.", "In the left picture there is {a}."),
        "right picture": ("The right picture shows {a}.", "In the right picture there is {a}."),
        "total": ("The two pictures show exactly {a} in all.", "In all, there {a|is|are} exactly {a}."),
        "more left": ("The left picture shows more {a} than the right one.",),
        "more right": ("The right picture shows more {a} than the left one.",),
        "predicate clause": ("{a} is {p>a}.",),
        "clause": ("{a} is {r}.",),
        "compared clause": ("{a} is {r}.",),
    },
    inflect=_inflect,
    agree=_agree,
    conjunction="and",
    nearest=True,
)
