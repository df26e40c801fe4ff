"""German: three genders, four cases, and adjectives whose endings depend on the article before them."""

from __future__ import annotations

from renaissance.data.world.languages.features import Adjective, Case, Language, NounPhrase, Word

NUMBERS = {2: "zwei", 3: "drei", 4: "vier", 5: "fünf", 6: "sechs"}
# by gender, or "p" for the plural
EIN = {
    "nom": {"m": "", "f": "e", "n": "", "p": "e"},
    "acc": {"m": "en", "f": "e", "n": "", "p": "e"},
    "dat": {"m": "em", "f": "er", "n": "em", "p": "en"},
    "gen": {"m": "es", "f": "er", "n": "es", "p": "er"},
}
DER = {
    "nom": {"m": "der", "f": "die", "n": "das", "p": "die"},
    "acc": {"m": "den", "f": "die", "n": "das", "p": "die"},
    "dat": {"m": "dem", "f": "der", "n": "dem", "p": "den"},
    "gen": {"m": "des", "f": "der", "n": "des", "p": "der"},
}
STRONG = {
    "nom": {"m": "er", "f": "e", "n": "es", "p": "e"},
    "acc": {"m": "en", "f": "e", "n": "es", "p": "e"},
    "dat": {"m": "em", "f": "er", "n": "em", "p": "en"},
    "gen": {"m": "en", "f": "er", "n": "en", "p": "er"},
}
WEAK = {
    "nom": {"m": "e", "f": "e", "n": "e", "p": "en"},
    "acc": {"m": "en", "f": "e", "n": "e", "p": "en"},
    "dat": {"m": "en", "f": "en", "n": "en", "p": "en"},
    "gen": {"m": "en", "f": "en", "n": "en", "p": "en"},
}
# after "ein" and "kein", which do not tell gender everywhere
MIXED = {
    "nom": {"m": "er", "f": "e", "n": "es", "p": "en"},
    "acc": {"m": "en", "f": "e", "n": "es", "p": "en"},
    "dat": {"m": "en", "f": "en", "n": "en", "p": "en"},
    "gen": {"m": "en", "f": "en", "n": "en", "p": "en"},
}


def _inflect(phrase: NounPhrase, case: Case) -> str:
    """Put a noun phrase into words."""
    gender = "p" if phrase.plural else phrase.head.gender
    article, endings = "", STRONG
    match phrase.determiner:
        case "the":
            article, endings = DER[case][gender], WEAK
        case "no":
            article, endings = f"kein{EIN[case][gender]}", MIXED
        case "number" if phrase.plural:
            article = NUMBERS[phrase.number]
        case "a" | "number" if not phrase.plural:
            article, endings = f"ein{EIN[case][gender]}", MIXED
    ending = endings[case][gender]
    words = [article] if article else []
    for adjective in phrase.adjectives:
        words.append(adjective.forms[0] if adjective.place == "fixed" else adjective.forms[0] + ending)
    words.append(_noun(phrase, case))
    if phrase.after:
        words.append(phrase.after)
    return " ".join(words)


def _noun(phrase: NounPhrase, case: Case) -> str:
    head = phrase.head
    if phrase.plural:
        return head.plural + ("n" if case == "dat" and not head.plural.endswith("n") else "")
    return {"dat": head.dative, "gen": head.genitive}.get(case) or head.singular


def _agree(adjective: Adjective, phrase: NounPhrase) -> str:
    """Adjectives have no ending after the noun; relative pronouns have gender and number."""
    if len(adjective.forms) == 1:
        return adjective.forms[0]
    return adjective.forms["mfn".index(phrase.head.gender) if not phrase.plural else 3]


def _stems(*stems: str) -> tuple[Adjective, ...]:
    return tuple(Adjective((stem,)) for stem in stems)


GERMAN = Language(
    code="de",
    nouns={
        "circle": (Word("Kreis", "Kreise", "m", genitive="Kreises"),),
        "square": (Word("Quadrat", "Quadrate", "n", genitive="Quadrats"),),
        "triangle": (Word("Dreieck", "Dreiecke", "n", genitive="Dreiecks"),),
        "star": (Word("Stern", "Sterne", "m", genitive="Sterns"),),
        "heart": (Word("Herz", "Herzen", "n", dative="Herzen", genitive="Herzens"),),
        "cross": (Word("Kreuz", "Kreuze", "n", genitive="Kreuzes"),),
        "diamond": (Word("Raute", "Rauten", "f"),),
        "shape": (Word("Figur", "Figuren", "f"), Word("Form", "Formen", "f")),
        "thing": (Word("Figur", "Figuren", "f"),),
        "background": (
            Word("Hintergrund", "Hintergründe", "m", genitive="Hintergrunds"),
            Word("Grund", "Gründe", "m", genitive="Grundes"),
        ),
    },
    adjectives={
        "red": _stems("rot"),
        "green": _stems("grün"),
        "blue": _stems("blau"),
        "yellow": _stems("gelb"),
        "purple": (*_stems("violett"), Adjective(("lila",), "fixed")),
        "orange": _stems("orangefarben"),
        "pink": (*_stems("rosafarben"), Adjective(("rosa",), "fixed")),
        "turquoise": _stems("türkisfarben"),
        "white": _stems("weiß"),
        "light grey": _stems("hellgrau"),
        "dark grey": _stems("dunkelgrau"),
        "black": _stems("schwarz"),
        "small": _stems("klein"),
        "large": _stems("groß"),
        "plain": _stems("einfarbig"),
        "striped": _stems("gestreift"),
        "dotted": _stems("gepunktet"),
        "who": (Adjective(("der", "die", "das", "die")),),
    },
    rules={
        "opening": (
            "{x}",
            "{x}",
            "{x}",
            "es gibt {x:acc}",
            "ein Bild von {x:dat}",
            "eine Zeichnung von {x:dat}",
            "hier {x|ist|sind} {x}",
            "dies zeigt {x:acc}",
            "man sieht {x:acc}",
        ),
        "ground": ("{x} auf {ground:dat}", "{x} vor {ground:dat}"),
        "bare": ("{x}",),
        "list": ("{a}: {x}",),
        "and": ("{x} und {y}",),
        "chain": ("{x} sowie {y}", "{x} und {y}"),
        "left of": ("links von {b:dat}",),
        "right of": ("rechts von {b:dat}",),
        "above": ("über {b:dat}", "oberhalb {b:gen}"),
        "below": ("unter {b:dat}", "unterhalb {b:gen}"),
        "inside": ("in {b:dat}", "innerhalb {b:gen}"),
        "around": ("um {b:acc} herum", "rund um {b:acc}"),
        "larger": (", {who>a} größer ist als {b},", ", {who>a} größer als {b} ist,"),
        "smaller": (", {who>a} kleiner ist als {b},", ", {who>a} kleiner als {b} ist,"),
        "is larger": ("größer als {b}",),
        "is smaller": ("kleiner als {b}",),
        "at top left": ("oben links", "links oben", "in der Ecke oben links"),
        "at top right": ("oben rechts", "rechts oben", "in der Ecke oben rechts"),
        "at bottom left": ("unten links", "links unten", "in der Ecke unten links"),
        "at bottom right": ("unten rechts", "rechts unten", "in der Ecke unten rechts"),
        "at top": ("oben", "im oberen Teil"),
        "at bottom": ("unten", "im unteren Teil"),
        "at left": ("links", "auf der linken Seite"),
        "at right": ("rechts", "auf der rechten Seite"),
        "at middle": ("in der Mitte", "im Zentrum"),
        "most left": ("am weitesten links",),
        "most right": ("am weitesten rechts",),
        "most top": ("am weitesten oben",),
        "most bottom": ("am weitesten unten",),
        "count": ("es gibt genau {a:acc}", "das Bild zeigt genau {a:acc}"),
        "absent": ("es gibt {a:acc}", "das Bild zeigt {a:acc}"),
        "exists?": ("Gibt es {a:acc}?", "Sieht man {a:acc}?", "Zeigt das Bild {a:acc}?"),
        "predicate?": ("Ist {a} {p>a}?",),
        "stands?": ("Ist {a} {r}?",),
        "compares?": ("Ist {a} {r}?",),
        "how many?": ("Wie viele {a:acc} gibt es?", "Wie viele {a:acc} sieht man?"),
        "colour?": ("Welche Farbe hat {a}?",),
        "shape?": ("Welche Form hat {a}?",),
        "size?": ("Ist {a} klein oder groß?", "Ist {a} groß oder klein?"),
        "texture?": ("Ist {a} einfarbig, gestreift oder gepunktet?",),
        "side?": ("Ist {a} links oder rechts?", "Befindet sich {a} links oder rechts im Bild?"),
        "both": ("Beide Bilder zeigen {a:acc}.", "Auf beiden Bildern ist {a} zu sehen."),
        "one": ("Genau eines der Bilder zeigt {a:acc}.", "Ein Bild zeigt {a:acc}, das andere nicht."),
        "neither": ("Keines der Bilder zeigt {a:acc}.", "Auf keinem der Bilder ist {a} zu sehen."),
        "some": ("Mindestens eines der Bilder zeigt {a:acc}.",),
        "left picture": ("Das linke Bild zeigt {a:acc}.", "Auf dem linken Bild ist {a} zu sehen."),
        "right picture": ("Das rechte Bild zeigt {a:acc}.", "Auf dem rechten Bild ist {a} zu sehen."),
        "total": ("Die beiden Bilder zeigen insgesamt genau {a:acc}.", "Insgesamt gibt es genau {a:acc}."),
        "more left": ("Das linke Bild zeigt mehr {a:acc} als das rechte.",),
        "more right": ("Das rechte Bild zeigt mehr {a:acc} als das linke.",),
        "predicate clause": ("{a} ist {p>a}.",),
        "clause": ("{a} ist {r}.",),
        "compared clause": ("{a} ist {r}.",),
    },
    inflect=_inflect,
    agree=_agree,
    conjunction="und",
    contractions={"von dem": "vom", "in dem": "im", "zu dem": "zum", "an dem": "am"},
)
