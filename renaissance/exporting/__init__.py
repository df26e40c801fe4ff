"""Models as files that run without renaissance: ONNX, or programs of torch.export."""

from __future__ import annotations

from renaissance.exporting.exporter import Exported, ExportedGraph, export
from renaissance.exporting.graphs import Part
from renaissance.exporting.programs import Format, register_inputs

__all__ = ["Exported", "ExportedGraph", "Format", "Part", "export", "register_inputs"]
