"""The languages that scenes are told in: a lexicon and a grammar each."""

from __future__ import annotations

from renaissance.data.world.languages.de import GERMAN
from renaissance.data.world.languages.en import ENGLISH
from renaissance.data.world.languages.es import SPANISH
from renaissance.data.world.languages.features import Language
from renaissance.errors import SpecError
from renaissance.spec import did_you_mean, shown

LANGUAGES = {language.code: language for language in (ENGLISH, GERMAN, SPANISH)}


def find_language(code: str) -> Language:
    """Return a language by its code.

    Raises:
        SpecError: there is no grammar of it.
    """
    language = LANGUAGES.get(code)
    if language is None:
        raise SpecError(
            f"The generated world speaks no language '{shown(code)}'.{did_you_mean(code, LANGUAGES)} "
            f"Choose among {', '.join(LANGUAGES)}."
        )
    return language
