"""Every error that a user can cause, each class with the exit code that the command line returns for it.

| exit code | class |
|---|---|
| 0 | success |
| 1 | a bug in renaissance (please report it) |
| 2 | `SpecError`: bad usage, spec, shorthand or recipe |
| 3 | `NonFiniteError`: training met NaN or infinity |
| 4 | `DataError`: a data set is not what was said of it |
| 5 | `SampleError`: one image or caption cannot be used |
| 6 | `PluginError`: a plugin failed, conflicts, or speaks another API version |
| 7 | `MissingPackageError`: something must be installed first |
| 8 | `OutputError`: a result cannot be written where it should go |
| 9 | `ModelFileError`: a saved model is damaged or does not fit |
| 10 | `HubError`: the Hub could not be reached, or refused |
| 11 | `CapabilityError`: the model was not trained for what was asked |
| 12 | `CheckpointError`: a run cannot be resumed |
| 13 | `FeatureStoreError`: a store of frozen features is damaged |
| 14 | `ReproductionError`: a published figure was not reproduced |
| 15 | `StoppedError`: Ctrl-C or SIGTERM stopped a training at a checkpoint; --resume continues it |
| 16 | `LoaderError`: a loader process died, or its code failed |
| 17 | `CardError`: a model card is stale, was edited by hand, or tells a secret or a local path |
| 18 | `PublishError`: a model lacks what others must have to judge it, such as its scores |
| 19 | `ExportError`: a model cannot be exported, or the exported file gives other values |
| 20 | `StudyError`: a study cannot say what it is asked: unequal arms, too few seeds, scores that do not pair |
| 21 | `ProcessGroupError`: another process of the run ended or stopped answering; its own error says why |
| 130 | interrupted (Ctrl-C) outside a training, or pressed twice |
| 143 | ended by SIGTERM outside a training |
"""

from __future__ import annotations


class RenaissanceError(Exception):
    """The base of every error that a user can cause; its message names the thing, the fault and the next step."""

    exit_code: int = 1


class SpecError(RenaissanceError):
    """A spec, a shorthand line, a recipe or a command line is wrong."""

    exit_code = 2


class UnknownComponentError(SpecError):
    """No installed plugin offers the component that was named."""


class NonFiniteError(RenaissanceError):
    """A loss or a gradient became NaN or infinite; the weights were not updated with it."""

    exit_code = 3


class DataError(RenaissanceError):
    """A data set is missing a file, a column or a split, or holds nothing."""

    exit_code = 4


class SampleError(RenaissanceError):
    """One image or caption cannot be used; the message names its row."""

    exit_code = 5


class PluginError(RenaissanceError):
    """A plugin failed, conflicts with another, or was made for another API version."""

    exit_code = 6


class MissingPackageError(RenaissanceError):
    """A package that the task at hand needs is not installed; the message gives the pip line."""

    exit_code = 7


class OutputError(RenaissanceError):
    """A result cannot be written: the folder is taken, or not writable."""

    exit_code = 8


class ModelFileError(RenaissanceError):
    """A saved model is damaged, or its tensors do not fit its config."""

    exit_code = 9


class HubError(RenaissanceError):
    """The Hub could not be reached, or refused the request."""

    exit_code = 10


class CapabilityError(RenaissanceError):
    """The model was not trained for what was asked of it; the message names the task to add."""

    exit_code = 11


class CheckpointError(RenaissanceError):
    """A run has no checkpoint that fits, so it cannot be resumed."""

    exit_code = 12


class FeatureStoreError(RenaissanceError):
    """A store of frozen features is damaged or truncated."""

    exit_code = 13


class ReproductionError(RenaissanceError):
    """A released checkpoint does not give its published figure here; the message says by how much."""

    exit_code = 14


class StoppedError(RenaissanceError):
    """A signal stopped a training; its checkpoint is written, and a resumed run goes on from it."""

    exit_code = 15


class LoaderError(RenaissanceError):
    """A loader process died, or the code that prepares samples failed; the message names the samples."""

    exit_code = 16


class CardError(RenaissanceError):
    """A model card is not what the files beside it say, tells a secret or a local path, or is none for the Hub."""

    exit_code = 17


class PublishError(RenaissanceError):
    """A model is not published as it lacks what others must have to judge it, such as its scores."""

    exit_code = 18


class ExportError(RenaissanceError):
    """A model cannot be exported, or an exported file gives other values than the model."""

    exit_code = 19


class StudyError(RenaissanceError):
    """A study cannot say what it is asked: its arms or scores do not pair, its seeds are too few, its files changed."""

    exit_code = 20


class ProcessGroupError(RenaissanceError):
    """Another process of a run ended or stopped answering, so this one cannot go on; the other's error says why."""

    exit_code = 21
