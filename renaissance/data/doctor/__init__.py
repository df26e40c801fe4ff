"""The data doctor: what is wrong with data, and what of the evaluation data has been seen in training.

Images are read once, in their order, and one at a time; what is kept of each is its id, its size and two hashes.
"""

from __future__ import annotations

from renaissance.data.doctor.examine import examine
from renaissance.data.doctor.report import Finding, Overlap, Report, Seen

__all__ = ["Finding", "Overlap", "Report", "Seen", "examine"]
