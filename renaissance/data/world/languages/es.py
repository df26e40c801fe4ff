"""Spanish: two genders, adjectives after the noun that agree with it, and some that change before it."""

from __future__ import annotations

from renaissance.data.world.languages.features import Adjective, Case, Gender, Language, NounPhrase, Word

NUMBERS = {2: "dos", 3: "tres", 4: "cuatro", 5: "cinco", 6: "seis"}
# singular and plural, by gender
DETERMINERS = {
    "a": {"m": ("un", "unos"), "f": ("una", "unas")},
    "the": {"m": ("el", "los"), "f": ("la", "las")},
    "no": {"m": ("ningún", "ningunos"), "f": ("ninguna", "ningunas")},
    "number": {"m": ("un", ""), "f": ("una", "")},
    "bare": {"m": ("", ""), "f": ("", "")},
}


def _inflect(phrase: NounPhrase, case: Case) -> str:
    """Put a noun phrase into words; Spanish nouns have no cases.

    Adjectives come as size, texture, colour, and are told the other way about. None stands before a noun without
    a determiner: "más pequeñas estrellas" would be smaller ones.
    """
    determiner = DETERMINERS[phrase.determiner][phrase.head.gender][phrase.plural]
    if phrase.determiner == "number" and phrase.plural:
        determiner = NUMBERS[phrase.number]
    words = [determiner] if determiner else []
    after: list[str] = []
    last: list[str] = []
    for adjective in phrase.adjectives[::-1]:
        before = adjective.place == "before" and determiner
        place = words if before else last if adjective.place == "after" else after
        place.append(_agree(adjective, phrase))
    words += [phrase.head.plural if phrase.plural else phrase.head.singular, *after, *last]
    if phrase.after:
        words.append(phrase.after)
    return " ".join(words)


def _agree(adjective: Adjective, phrase: NounPhrase) -> str:
    """Choose among one form, two (singular, plural), or four (masculine, then feminine)."""
    match len(adjective.forms):
        case 1:
            return adjective.forms[0]
        case 2:
            return adjective.forms[phrase.plural]
        case _:
            return adjective.forms[2 * (phrase.head.gender == "f") + phrase.plural]


def _noun(singular: str, plural: str, gender: Gender) -> tuple[Word, ...]:
    return (Word(singular, plural, gender),)


def _o(stem: str) -> Adjective:
    return Adjective((f"{stem}o", f"{stem}os", f"{stem}a", f"{stem}as"))


def _two(singular: str, plural: str) -> Adjective:
    return Adjective((singular, plural))


SPANISH = Language(
    code="es",
    nouns={
        "circle": _noun("círculo", "círculos", "m"),
        "square": _noun("cuadrado", "cuadrados", "m"),
        "triangle": _noun("triángulo", "triángulos", "m"),
        "star": _noun("estrella", "estrellas", "f"),
        "heart": _noun("corazón", "corazones", "m"),
        "cross": _noun("cruz", "cruces", "f"),
        "diamond": _noun("rombo", "rombos", "m"),
        "shape": _noun("figura", "figuras", "f"),
        "thing": _noun("figura", "figuras", "f"),
        "background": _noun("fondo", "fondos", "m"),
    },
    adjectives={
        "red": (_o("roj"),),
        "green": (_two("verde", "verdes"),),
        "blue": (_two("azul", "azules"),),
        "yellow": (_o("amarill"),),
        "purple": (_o("morad"), _two("violeta", "violetas")),
        "orange": (_two("naranja", "naranjas"), _o("anaranjad")),
        "pink": (_two("rosa", "rosas"), _o("rosad")),
        "turquoise": (_two("turquesa", "turquesas"),),
        "white": (_o("blanc"),),
        "light grey": (Adjective(("gris claro",)),),
        "dark grey": (Adjective(("gris oscuro",)),),
        "black": (_o("negr"),),
        "small": (_o("pequeñ"), Adjective(("pequeño", "pequeños", "pequeña", "pequeñas"), "before")),
        "large": (_two("grande", "grandes"), Adjective(("gran", "grandes"), "before")),
        "plain": (_o("lis"),),
        "striped": (_o("rayad"), Adjective(("de rayas",), "after")),
        "dotted": (Adjective(("de lunares",), "after"),),
        "how many": (_o("cuánt"),),
    },
    rules={
        "opening": (
            "{x}",
            "{x}",
            "{x}",
            "hay {x}",
            "una imagen de {x}",
            "un dibujo de {x}",
            "aquí hay {x}",
            "esto muestra {x}",
            "se {x|ve|ven} {x}",
        ),
        "ground": ("{x} sobre {ground}", "{x} sobre un fondo {p>ground}"),
        "bare": ("{x}",),
        "list": ("{a}: {x}",),
        "and": ("{x} y {y}",),
        "chain": ("{x}, y {y}", "{x} y {y}"),
        "left of": ("a la izquierda de {b}",),
        "right of": ("a la derecha de {b}",),
        "above": ("encima de {b}", "por encima de {b}"),
        "below": ("debajo de {b}", "por debajo de {b}"),
        "inside": ("dentro de {b}", "en el interior de {b}"),
        "around": ("alrededor de {b}",),
        "larger": ("más grande que {b}", "mayor que {b}"),
        "smaller": ("más {small>a} que {b}", "menor que {b}"),
        "is larger": ("más grande que {b}", "mayor que {b}"),
        "is smaller": ("más {small>a} que {b}", "menor que {b}"),
        "at top left": ("arriba a la izquierda", "en la parte superior izquierda"),
        "at top right": ("arriba a la derecha", "en la parte superior derecha"),
        "at bottom left": ("abajo a la izquierda", "en la parte inferior izquierda"),
        "at bottom right": ("abajo a la derecha", "en la parte inferior derecha"),
        "at top": ("arriba", "en la parte superior"),
        "at bottom": ("abajo", "en la parte inferior"),
        "at left": ("a la izquierda", "en la parte izquierda"),
        "at right": ("a la derecha", "en la parte derecha"),
        "at middle": ("en el centro", "en el medio"),
        "most left": ("que está más a la izquierda",),
        "most right": ("que está más a la derecha",),
        "most top": ("que está más arriba",),
        "most bottom": ("que está más abajo",),
        "count": ("hay exactamente {a}", "la imagen muestra exactamente {a}"),
        "absent": ("no hay {a}", "la imagen no muestra {a}"),
        "exists?": ("¿Hay {a}?", "¿Se ve {a}?", "¿Muestra la imagen {a}?"),
        "predicate?": ("¿Es {p>a} {a}?",),
        "stands?": ("¿Está {a} {r}?",),
        "compares?": ("¿Es {a} {r}?",),
        "how many?": ("¿{how many>a} {a} hay?", "¿{how many>a} {a} se ven?"),
        "colour?": ("¿De qué color es {a}?", "¿Qué color tiene {a}?"),
        "shape?": ("¿Qué forma tiene {a}?",),
        "size?": ("¿Es {a} {small>a} o grande?", "¿Es {a} grande o {small>a}?"),
        "texture?": ("¿Es {a} {plain>a}, de rayas o de lunares?",),
        "side?": ("¿Está {a} a la izquierda o a la derecha?", "¿Queda {a} a la izquierda o a la derecha de la imagen?"),
        "both": ("Ambas imágenes muestran {a}.", "En ambas imágenes hay {a}."),
        "one": ("Exactamente una de las imágenes muestra {a}.", "Una imagen muestra {a} y la otra no."),
        "neither": ("Ninguna de las imágenes muestra {a}.", "En ninguna de las imágenes hay {a}."),
        "some": ("Al menos una de las imágenes muestra {a}.",),
        "left picture": ("La imagen izquierda muestra {a}.", "En la imagen izquierda hay {a}."),
        "right picture": ("La imagen derecha muestra {a}.", "En la imagen derecha hay {a}."),
        "total": ("Las dos imágenes muestran en total exactamente {a}.", "En total hay exactamente {a}."),
        "more left": ("La imagen izquierda muestra más {a} que la derecha.",),
        "more right": ("La imagen derecha muestra más {a} que la izquierda.",),
        "predicate clause": ("{a} es {p>a}.",),
        "clause": ("{a} está {r}.",),
        "compared clause": ("{a} es {r}.",),
    },
    inflect=_inflect,
    agree=_agree,
    conjunction="y",
    contractions={"de el": "del", "a el": "al"},
)
