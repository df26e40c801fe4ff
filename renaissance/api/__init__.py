"""What describing a plugin takes: entries, options, protocols and the data that flows between parts. Imports no torch.

Plugins import from here alone; in which module of this package a name is defined may change.
"""

from __future__ import annotations

import pluggy

from renaissance.api.entries import (
    MODALITIES,
    UNKNOWN,
    Architecture,
    BackboneEntry,
    Capabilities,
    Entry,
    FusionHeadEntry,
    Modality,
    Options,
    Output,
    Positions,
    TaskEntry,
    TowerNeeds,
    Unknown,
    Weights,
)
from renaissance.api.facts import (
    ModelFacts,
    SavedBackbone,
    TokenizerFacts,
    TowerFacts,
    WordPieces,
)
from renaissance.api.inputs import (
    Batch,
    Box,
    Features,
    Item,
    Joint,
    Prefix,
    TextInput,
    VisionInput,
)
from renaissance.api.scores import (
    ItemScorer,
    MeasuredItemTask,
    MeasuredTask,
    Outcomes,
    Score,
    Scorer,
)
from renaissance.api.tasks import (
    Encoded,
    ItemTask,
    Pairs,
    Task,
    TaskLoss,
    Views,
)
from renaissance.api.towers import (
    Backbone,
    FusionHead,
    JointBackbone,
    LayeredBackbone,
    Resizable,
    SharingText,
    TextBlock,
    TextProcessor,
    VisionProcessor,
)

API_VERSION = 1

hookimpl = pluggy.HookimplMarker("renaissance")

__all__ = [
    "API_VERSION",
    "MODALITIES",
    "UNKNOWN",
    "Architecture",
    "Backbone",
    "BackboneEntry",
    "Batch",
    "Box",
    "Capabilities",
    "Encoded",
    "Entry",
    "Features",
    "FusionHead",
    "FusionHeadEntry",
    "Item",
    "ItemScorer",
    "ItemTask",
    "Joint",
    "JointBackbone",
    "LayeredBackbone",
    "MeasuredItemTask",
    "MeasuredTask",
    "Modality",
    "ModelFacts",
    "Options",
    "Outcomes",
    "Output",
    "Pairs",
    "Positions",
    "Prefix",
    "Resizable",
    "SavedBackbone",
    "Score",
    "Scorer",
    "SharingText",
    "Task",
    "TaskEntry",
    "TaskLoss",
    "TextBlock",
    "TextInput",
    "TextProcessor",
    "TokenizerFacts",
    "TowerFacts",
    "TowerNeeds",
    "Unknown",
    "Views",
    "VisionInput",
    "VisionProcessor",
    "Weights",
    "WordPieces",
    "hookimpl",
]
