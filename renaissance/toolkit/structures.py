"""Register the dataclasses of `renaissance.api` with torch, so that models that use them can be exported."""

from __future__ import annotations

import torch.export

from renaissance.api import Features, Joint, TextInput, VisionInput

for _structure in (VisionInput, TextInput, Features, Joint):
    torch.export.register_dataclass(_structure)
