"""FLOPs of matrix products and convolutions, counted while they run: two for each multiplication with its addition.

What backward will take is known in forward already: each product has one more for each of its two operands that gets
a gradient. Attention is counted as the plain products that it is, whatever kernel computes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

ATEN = torch.ops.aten
Storage = torch.UntypedStorage
INDEXING = (ATEN.index, ATEN.index_put, ATEN.index_put_, ATEN._index_put_impl_, ATEN._unsafe_index_put)
# marks the layers of which only inputs are kept, see `toolkit.recompute`
BEGINS, ENDS = torch.ops.profiler._record_function_enter_new, torch.ops.profiler._record_function_exit
# operations that keep no tensor for their gradient
NOTHING_KEPT = frozenset(
    getattr(ATEN, name)
    for name in (
        "add", "add_", "sub", "rsub", "neg", "sum", "mean", "cat", "stack", "clone", "copy_", "detach", "alias",
        "_to_copy", "view", "_unsafe_view", "as_strided", "t", "transpose", "permute", "expand", "squeeze", "unsqueeze",
        "slice", "select", "split", "split_with_sizes", "unbind", "unflatten",
    )
)  # fmt: skip


def by_number(packet: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments of an operation, with masks as the numbers of what they choose.

    A tensor without values cannot be asked how many those are.
    """
    if packet not in INDEXING:
        return args
    numbers: list[Tensor | None] = []
    for index in args[1]:
        masks = index is not None and index.dtype == torch.bool
        numbers += list(index.nonzero().unbind(1)) if masks else [index]
    return args[0], numbers, *args[2:]


def product_flops(packet: Any, args: Sequence[Any], output: Any) -> int:
    """Return the FLOPs of one operation; 0 where nothing is multiplied.

    A convolution's gradients of its input and of its weight cost as much as the convolution, each.
    """
    match packet:
        case ATEN.mm | ATEN.bmm:
            return 2 * int(output.numel()) * int(args[0].shape[-1])
        case ATEN.addmm | ATEN.baddbmm:
            return 2 * int(output.numel()) * int(args[1].shape[-1])
        case ATEN.convolution:
            return _convolution(args[0], args[1], output, transposed=args[6])
        case ATEN.convolution_backward:
            gradients = sum(map(bool, args[10][:2]))
            return gradients * _convolution(args[1], args[2], args[0], transposed=args[7])
        case _:
            return 0


def _convolution(inputs: Tensor, weight: Tensor, output: Tensor, *, transposed: bool) -> int:
    """Return the FLOPs of a convolution of inputs [B, C, ...] with weight [C out, C in of a group, ...]."""
    places = (inputs if transposed else output).shape
    return 2 * int(places[0]) * int(places[2:].numel()) * weight.numel()


@dataclass(frozen=True, slots=True)
class Product:
    """One matrix product: its FLOPs, and of which tensors each of its two operands was made."""

    flops: int
    left: Sequence[Tensor]
    right: Sequence[Tensor]


def products(packet: Any, args: Sequence[Any], output: Any) -> list[Product]:
    """Return the matrix products of one operation; attention is two of them, and with projections four."""
    name = str(packet)
    if name.startswith("aten._scaled_dot_product") and not name.endswith("_backward"):
        return _attention(args[0], args[1], args[2], _tensors(args[3:]))
    if packet is ATEN._native_multi_head_attention:
        return _whole_attention(args)
    flops = product_flops(packet, args, output)
    first = 1 if packet in (ATEN.addmm, ATEN.baddbmm) else 0
    return [Product(flops, [args[first]], [args[first + 1]])] if flops else []


def _attention(query: Tensor, key: Tensor, value: Tensor, bias: Sequence[Tensor]) -> list[Product]:
    """Return the two products of queries [B, H, Lq, D] with keys [B, H, Lk, D] and values [B, H, Lk, Dv]."""
    scores = 2 * query.shape[:-1].numel() * key.shape[-2]
    return [
        Product(scores * query.shape[-1], [query], [key]),
        Product(scores * value.shape[-1], [query, key, *bias], [value]),
    ]


def _whole_attention(args: Sequence[Any]) -> list[Product]:
    """Return the products of torch's own attention with its projections, which runs without a graph alone."""
    inputs, width, into, out = args[0], args[3], args[5], args[7]  # [B, L, D]
    tokens, length = inputs.shape[:-1].numel(), inputs.shape[1]
    return [
        Product(2 * tokens * into.numel(), [inputs], [into]),
        Product(2 * tokens * length * width, [inputs], [into]),
        Product(2 * tokens * length * width, [inputs], [into]),
        Product(2 * tokens * out.numel(), [inputs], [out]),
    ]


def storage(tensor: Tensor) -> int:
    """Return what tells the memory of a tensor from that of all others which are there."""
    return int(tensor.untyped_storage()._cdata)


class Storages:
    """Memory of tensors, as long as it is there: none of it is held, and what is let go leaves."""

    def __init__(self, storages: Iterable[Storage] = ()) -> None:
        self._seen: Any = WeakIdKeyDictionary()
        self.update(storages)

    def __contains__(self, storage: Storage) -> bool:
        return storage in self._seen

    def __iter__(self) -> Iterator[Storage]:
        return iter(self._seen)

    def add(self, storage: Storage) -> None:
        """Take in the memory of a tensor."""
        self._seen[storage] = None

    def update(self, storages: Iterable[Storage]) -> None:
        """Take in the memory of several tensors."""
        for one in storages:
            self.add(one)

    def discard(self, storage: Storage) -> None:
        """Leave out the memory of a tensor, if it is there."""
        self._seen.pop(storage, None)

    def clear(self) -> None:
        """Leave out all."""
        self._seen.clear()


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found


@dataclass(frozen=True, slots=True)
class Taken:
    """FLOPs of a part of a step. recomputed: of layers that run again in backward.

    whole: forward and backward if nothing was frozen; still: those of them that ran without a graph.
    """

    forward: int = 0
    backward: int = 0
    recomputed: int = 0
    whole: int = 0
    still: int = 0

    def __add__(self, other: Taken) -> Taken:
        """Return both together."""
        return Taken(*(own + more for own, more in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: int) -> Taken:
        """Return the same so many times."""
        return Taken(*(times * own for own in astuple(self)))


class StepCount(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own is not annotated
    """Counts what runs inside, and what its backward will take.

    varying: storages of tensors that parameters before went into, which would get a gradient were nothing frozen.
    trains: whether there is a backward at all.
    """

    def __init__(self, varying: Iterable[Storage] = (), *, trains: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own is not annotated
        self._forward = self._backward = self._again = self._whole = self._still = 0
        self._trains = trains
        self._varying = Storages(varying)
        self._regions: list[list[int]] = []  # of each: FLOPs before it, and those up to what it keeps last

    @property
    def taken(self) -> Taken:
        """What was counted."""
        return Taken(self._forward, self._backward, self._again, self._whole, self._still)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave out what is done inside."""
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]  # torch's own is not annotated
        try:
            yield
        finally:
            self.__enter__()  # type: ignore[no-untyped-call]  # torch's own is not annotated

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count it."""
        packet = func._overloadpacket
        if packet in (BEGINS, ENDS):
            self._region(begins=packet is BEGINS)
            return func(*args, **(kwargs or {}))
        args = by_number(packet, args)
        tensors = [*_tensors(args), *_tensors((kwargs or {}).values())]
        tracked = torch.is_grad_enabled()
        keeps = tracked and packet not in NOTHING_KEPT and any(tensor.requires_grad for tensor in tensors)
        output = func(*args, **(kwargs or {}))
        made = products(packet, args, output)
        if keeps and len(made) == 1:
            self._kept()  # of a product only what goes in is kept, and of attention what comes out, too
        for product in made:
            self._count(product, tracked)
        if keeps and len(made) != 1:
            self._kept()
        self._follow(tensors, output)
        return output

    def _count(self, product: Product, tracked: bool) -> None:
        flops, operands = product.flops, (product.left, product.right)
        self._forward += flops
        learns = sum(any(tensor.requires_grad for tensor in made_of) for made_of in operands)
        self._backward += flops * learns * (tracked and self._trains)
        whole = flops * (
            1 + self._trains * sum(any(self._varies(tensor) for tensor in made_of) for made_of in operands)
        )
        self._whole += whole
        self._still += whole * (not tracked)

    def _varies(self, tensor: Tensor) -> bool:
        learned = isinstance(tensor, nn.Parameter) or tensor.requires_grad
        return tensor.is_floating_point() and (learned or tensor.untyped_storage() in self._varying)

    def _follow(self, tensors: Sequence[Tensor], output: Any) -> None:
        """Note of what was made whether any parameter went into it."""
        varies = any(self._varies(tensor) for tensor in tensors)
        for made in _tensors([output]):
            (self._varying.add if varies else self._varying.discard)(made.untyped_storage())

    def _kept(self) -> None:
        if self._regions:
            self._regions[-1][1] = self._forward

    def _region(self, *, begins: bool) -> None:
        if begins:
            self._kept()  # what goes into a region is kept by what is around it
            self._regions.append([self._forward, self._forward])
        elif self._regions:
            first, last = self._regions.pop()
            self._again += last - first
