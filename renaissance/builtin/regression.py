"""A number for an image with a text."""

from __future__ import annotations

from renaissance.api import ModelFacts
from renaissance.builtin.classification import JointHead
from renaissance.builtin.downstream_options import RegressionOptions
from renaissance.builtin.goals import one_number
from renaissance.builtin.labels import Numbers


def regression(options: RegressionOptions, *, model: ModelFacts) -> JointHead:
    """Return a task of the user's own: a number for an image with a text."""
    goal = one_number(Numbers("regression", options.field))
    return JointHead(goal, model=model, name="regression", hidden=options.hidden)
