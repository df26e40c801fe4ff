"""From the checkpoints of other libraries to models of ours: every tensor is used once, or the import fails.

Imports no torch until a checkpoint is imported.
"""

from __future__ import annotations

from renaissance.importing.importers import IMPORTERS, Imported, Importer, import_checkpoint

__all__ = ["IMPORTERS", "Imported", "Importer", "import_checkpoint"]
