"""What a model costs, known without its weights: parameters, FLOPs of a training step, and memory.

The very step that training runs is run on tensors that have shapes and no values, so autograd itself decides which
gradients exist: no weight gradient in a frozen part, no backward at all in a frozen prefix. What that step computes
with is counted by formulas, with attention as plain matrix products.
"""

from renaissance.cost.counting import Flops
from renaissance.cost.matching import retrieval_costs
from renaissance.cost.report import SHARDS, Cost, Memory, Parameters, cost, counted, counted_parts
from renaissance.cost.shapes import PRESETS, assemble_on_meta, assemble_without_weights, synthetic_batch

__all__ = [
    "PRESETS",
    "SHARDS",
    "Cost",
    "Flops",
    "Memory",
    "Parameters",
    "assemble_on_meta",
    "assemble_without_weights",
    "cost",
    "counted",
    "counted_parts",
    "retrieval_costs",
    "synthetic_batch",
]
