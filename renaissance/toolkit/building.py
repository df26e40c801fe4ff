"""Building library models: without weights, and without the parameters that their forward never uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from torch import Tensor, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def build_empty(build: Callable[[], ModuleT]) -> ModuleT:
    """Return what `build` returns, its parameters on the meta device, its buffers as they should be.

    A model that reads a tensor while it is built is built in full on the CPU instead. Whatever the way, no buffer
    that the saved weights will not bring is left on meta.
    """
    from accelerate import init_empty_weights  # 2 s of imports that only loading needs

    try:
        with init_empty_weights(include_buffers=False):
            model = build()
    except (NotImplementedError, RuntimeError):  # "Cannot copy out of meta tensor", "Tensor.item() cannot be called"
        return build()
    if any(buffer.is_meta for buffer in model.buffers()):
        return build()
    return model


def unused_parts(root: nn.Module, outputs: Iterable[Tensor]) -> tuple[str, ...]:
    """Return the dotted names of the submodules and parameters of `root` that `outputs` do not depend on.

    The autograd graph tells: nothing is computed. Parameters that need no gradient are left out. So are members of a
    list of which others of their class are used: that these are may depend on the input, as with experts that a router
    chooses for each token.
    """
    used = _parameters_in_graph(outputs)
    return tuple(_unused_within(root, "", used))


def drop_parts(root: nn.Module, names: Iterable[str]) -> None:
    """Replace these submodules of `root` by an identity, and these parameters by None."""
    for name in names:
        path, _, attribute = name.rpartition(".")
        owner = root.get_submodule(path)
        if isinstance(getattr(owner, attribute), nn.Module):
            setattr(owner, attribute, nn.Identity())
        else:
            setattr(owner, attribute, None)


class LooseParameters(nn.Module):
    """Parameters that sit directly on a larger module, such as a class token, so that they can be named as a part.

    A view: it is made anew whenever it is asked for, never kept, and never a submodule of anything.
    """

    def __init__(self, owner: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        for name in names:
            self.register_parameter(name, getattr(owner, name))


def _parameters_in_graph(outputs: Iterable[Tensor]) -> set[int]:
    """Return the ids of the parameters that a gradient of `outputs` would reach."""
    waiting = [output.grad_fn for output in outputs]
    seen: set[object] = set()
    parameters: set[int] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)  # only the leaves of the graph have one
        if isinstance(variable, Tensor):
            parameters.add(id(variable))
        waiting.extend(following for following, _ in node.next_functions)
    return parameters


def _unused_within(module: nn.Module, prefix: str, used: set[int]) -> list[str]:
    """Return the largest unused parts of `module`, whose own name is `prefix`."""
    names = []
    chosen = _used_classes(module, used) if isinstance(module, _LISTS) else set()
    for name, child in module.named_children():
        if not _is_unused_part(child, used):
            names.extend(_unused_within(child, f"{prefix}{name}.", used))
        elif type(child) not in chosen:
            names.append(prefix + name)
    own = module.named_parameters(recurse=False)
    return names + [
        prefix + name for name, parameter in own if _is_unused(parameter, used) and type(parameter) not in chosen
    ]


_LISTS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


def _used_classes(members: nn.Module, used: set[int]) -> set[type]:
    """Return the classes of the members of a list that are used."""
    modules = {type(child) for child in members.children() if not _is_unused_part(child, used)}
    return modules | {type(own) for own in members.parameters(recurse=False) if not _is_unused(own, used)}


def _is_unused_part(module: nn.Module, used: set[int]) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and all(_is_unused(parameter, used) for parameter in parameters)


def _is_unused(parameter: nn.Parameter, used: set[int]) -> bool:
    return parameter.requires_grad and id(parameter) not in used
