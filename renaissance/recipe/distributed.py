"""How several processes share the work."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from renaissance.spec import Strict


class Distributed(Strict):
    """How the processes that `torchrun` starts share a training; one process alone trains in the same way."""

    strategy: Literal["ddp", "fsdp"] = Field(
        "ddp", description="ddp: each process has the whole model; fsdp: weights, gradients and moments are divided."
    )
    shard: Literal["full", "grad"] = Field(
        "full", description="Of fsdp. grad: weights are kept whole from the forward to the backward pass: faster."
    )
    timeout: Annotated[float, Field(gt=0, le=86_400)] = Field(
        1800.0, description="Seconds that a process waits for what another one computes; then all end."
    )
    offload: bool = Field(False, description="Of fsdp: weights, gradients and moments stay in the memory of the host.")

    @model_validator(mode="after")
    def _of_fsdp(self) -> Self:
        if self.strategy == "ddp" and (self.offload or self.shard != "full"):
            raise ValueError("'shard' and 'offload' are of the strategy fsdp; say 'strategy: fsdp', or leave them out")
        return self
