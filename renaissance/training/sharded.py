"""Models that are divided among processes (FSDP2), and their tensors made whole again for files and for measuring.

Accelerate's plugin wraps layers by the names of their classes, and on a CPU trains with DDP without a word. Here
`fully_shard` itself is called, on the layers that backbones list, so that what tests run is what GPUs run.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from renaissance.assemble import Assembly, Encoder
from renaissance.errors import SpecError
from renaissance.models.two_tower import TwoTower, holds_still
from renaissance.recipe.distributed import Distributed
from renaissance.toolkit.attention import AttentionLayer, FeedForwardLayer
from renaissance.training.train_step import TrainStep

Module = TypeVar("Module", bound=nn.Module)


def shard(step: TrainStep, settings: Distributed, *, bf16: bool) -> None:
    """Divide a model among the processes of the group: each layer is gathered while it runs, and no longer.

    What is in no layer (embeddings, heads, projections) is gathered for the whole of a step. With bf16 layers are
    gathered and run in it; weights, gradients and what is outside of the layers stay in fp32.

    Raises:
        SpecError: a task keeps a momentum teacher, which would have to be whole.
    """
    if step.momentum.teachers:
        names = ", ".join(step.momentum.teachers)
        raise SpecError(
            f"'{names}' keeps a momentum teacher, a whole second model, which fsdp does not divide. Leave out its "
            "queue and distillation, or say 'strategy: ddp'."
        )
    offload = CPUOffloadPolicy(pin_memory=torch.cuda.is_available()) if settings.offload else OffloadPolicy()
    for unit in units(step.encoder):
        # what is frozen from the beginning on runs in fp32, with or without autocast
        dtype = torch.bfloat16 if bf16 and not holds_still(unit) else None
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
        fully_shard(unit, mp_policy=policy, offload_policy=offload, ignored_params=_scalars(unit))
    scalars = _scalars(step)
    fully_shard(step, offload_policy=offload, ignored_params=scalars)
    for scalar in scalars:
        scalar.register_post_accumulate_grad_hook(_average)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    fit_to_freezing(step, settings)


def units(encoder: Encoder) -> Iterator[nn.Module]:
    """Yield the modules that are gathered one at a time: the blocks of the towers, and the layers of the fusion head.

    A backbone that does not list its blocks is one. A head that runs the halves of the text tower's own blocks calls no
    block, and a shared space is computed without a call of the head: what these need is gathered with the rest.
    """
    if not isinstance(encoder, TwoTower):
        yield from encoder.base.blocks
        return
    yield from encoder.vision.blocks or [encoder.vision]
    if encoder.needs.text_blocks != "shared":
        yield from encoder.text.blocks or [encoder.text]
    yield from _layers(encoder.fusion)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, AttentionLayer | FeedForwardLayer):
            yield child
        else:
            yield from _layers(child)


def _scalars(module: nn.Module) -> set[nn.Parameter]:
    """Return the parameters that are one number, such as a temperature; `fully_shard` takes none of these."""
    return {own for own in module.parameters() if own.dim() == 0}


def _average(scalar: Tensor) -> None:
    # what was summed from earlier parts of an update is equal on all processes, and stays as it is
    assert scalar.grad is not None, "the hook is called when it is there"
    dist.all_reduce(scalar.grad)
    scalar.grad /= dist.get_world_size()


def fit_to_freezing(step: TrainStep, settings: Distributed) -> None:
    """Let layers that are frozen now be gathered once a step, and the others as the recipe says.

    A frozen layer runs in calls of canonical shape, and how many depends on the texts of a process: one that gathers at
    every call would wait for others that make fewer.
    """
    for unit in units(step.encoder):
        assert isinstance(unit, FSDPModule), "`shard` has divided it"
        unit.set_reshard_after_forward(settings.shard == "full" and not holds_still(unit), recurse=False)


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
    """Scale gradients down to a norm of `limit` in all; return the norm that they had, on every process the same."""
    gradients = [own.grad for own in parameters if own.grad is not None]
    divided = [gradient for gradient in gradients if isinstance(gradient, DTensor)]
    if not divided:
        norm: Tensor = nn.utils.clip_grad_norm_(parameters, limit)
        return norm
    others = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
    norms = [_whole(nn.utils.get_total_norm(divided)), nn.utils.get_total_norm(others)]
    norm = torch.linalg.vector_norm(torch.stack([part.to(norms[0].device) for part in norms]))
    share = (limit / (norm + 1e-6)).clamp(max=1.0)  # as torch does it
    for gradient in [*(gradient.to_local() for gradient in divided), *others]:
        gradient.mul_(share.to(gradient.device))
    return norm


# --- whole tensors --------------------------------------------------------------------------------------------------


def whole(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Return tensors that may be divided as whole ones, in the memory of the host; all processes call it together.

    keep: whether this process needs them; if not, none is held longer than until the next, and nothing is returned.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        full = _whole(tensor)
        if keep:
            found[name] = full.cpu()
    return found


def like(value: Tensor, held: Tensor) -> Tensor:
    """Return a whole tensor as `held` is: on its device, and this process's part of it where that is divided."""
    if isinstance(held, DTensor):
        # each process has read the file: nothing is sent
        return distribute_tensor(value.to(held.device), held.device_mesh, held.placements, src_data_rank=None)
    return value.to(held.device)


def local(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor that may be divided; what is done to it in place is done to the tensor."""
    found: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return found


def _whole(tensor: Tensor) -> Tensor:
    if not isinstance(tensor, DTensor):
        return tensor.detach()
    divided: Any = tensor.detach()  # a DTensor, which torch types as what it divides
    found: Tensor = divided.to(tensor.device_mesh.device_type).full_tensor()
    return found


class Shell:
    """A model of the same form as another that will be divided; it has weights only while they are asked for."""

    def __init__(self, model: Assembly) -> None:
        held: dict[int, Any] = {id(own): _emptied(own) for own in model.parameters()}
        self._model = Assembly(model.plan, copy.deepcopy(model.encoder, held), copy.deepcopy(model.tasks, held))

    def fill(self, divided: Assembly, *, keep: bool) -> Assembly:
        """Take weights and buffers of the divided model, to measure; all processes call it, and one keeps them."""
        for own, other in zip(self._model.parameters(), divided.parameters(), strict=True):
            full = _whole(other)
            if keep:
                own.data = full.to(other.device_mesh.device_type if isinstance(other, DTensor) else other.device)
        for own_buffer, other_buffer in zip(self._model.buffers(), divided.buffers(), strict=True):
            own_buffer.copy_(other_buffer)
        self._model.eval()
        return self._model

    def empty(self) -> None:
        """Let go of the weights."""
        for own in self._model.parameters():
            own.data = own.data.new_empty(0)


def _emptied(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(parameter.detach().new_empty(0), requires_grad=parameter.requires_grad)
