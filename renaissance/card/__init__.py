"""Model cards: the README.md of a saved model, made from the files beside it, and checked against them.

Every number in a card comes from scores.json, ledger.json, recipe.yaml, config.json or the model that config.json
describes, each kind of number through one function of `figures`. What a person adds stands below `<!-- yours -->`.
"""

from renaissance.card.checking import check_beside, check_card
from renaissance.card.keeping import YOURS, check_replaceable
from renaissance.card.shortening import shorten_paths
from renaissance.card.sources import read_sources
from renaissance.card.writing import card_from, card_of, card_of_held, write_card

__all__ = [
    "YOURS",
    "card_from",
    "card_of",
    "card_of_held",
    "check_beside",
    "check_card",
    "check_replaceable",
    "read_sources",
    "shorten_paths",
    "write_card",
]
