"""What a model looks at, and what its layers know: attributions, ablations, similarity, drift, probes."""

from __future__ import annotations

from renaissance.explaining.explainer import Explanation, explain

__all__ = ["Explanation", "explain"]
