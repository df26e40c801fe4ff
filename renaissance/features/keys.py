"""The key of stored features is content: what the tower is, what it was given, and what computed it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from renaissance.api import Modality
from renaissance.features.layout import FORMAT
from renaissance.toolkit.canonical import BUCKET_TOKENS, IMAGES_A_CALL, TOKENS_A_CALL

# the libraries whose code decides what a tower computes, and what it is given
LIBRARIES = (
    "renaissance-vl", "torch", "torchvision", "transformers", "timm", "open-clip-torch", "tokenizers", "numpy",
    "pillow", "simplejpeg",
)  # fmt: skip
ATTENTION = ("flash", "mem_efficient", "math", "cudnn")


def content_digest(content: bytes | str) -> str:
    """Return the SHA-256, hexadecimal, of a sample: the bytes of an image file, or a caption."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def tower_digest(module: nn.Module, config: Mapping[str, Any], without: Collection[int] = ()) -> str:
    """Return the SHA-256 over the config, the scales of adapters, and each tensor: name, dtype, shape and bytes.

    without: the ids of tensors that are not counted.
    """
    digest = hashlib.sha256(_canonical_json(config))
    scales = {name: part.scaling for name, part in module.named_modules() if _adapted(part)}
    if scales:  # they are no tensors, and no config of a tower has them
        digest.update(_canonical_json(scales))
    every = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    named = {name: tensor for name, tensor in every.items() if id(tensor) not in without}
    for name in sorted(named):
        tensor = named[name].detach()
        digest.update(_canonical_json([name, str(tensor.dtype), list(tensor.shape)]))
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def kernel_facts(device: torch.device) -> dict[str, str]:
    """Return what decides how floats are summed on this device, the versions of the libraries included."""
    facts = {"device": device.type, **{name: _version(name) for name in LIBRARIES}, "chosen": _chosen_kernels()}
    if device.type == "cpu":
        # convolutions are split among the threads, and sum in another order for another number of them
        return {**facts, "cpu": torch.backends.cpu.get_cpu_capability(), "threads": str(torch.get_num_threads())}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        precision = f"cudnn tf32 {torch.backends.cudnn.allow_tf32}"
        versions = f"CUDA {torch.version.cuda}, cuDNN {_cudnn_version()}"
        return {
            **facts,
            "gpu": f"{properties.name} {properties.major}.{properties.minor}",
            "float32": precision,
            "cuda": versions,
        }
    return facts


def store_facts(
    *,
    tower: str,
    name: str,
    modality: Modality,
    depth: int | None,
    layers: int,
    dtype: torch.dtype,
    kept: torch.dtype,
    processor: Mapping[str, Any],
    kernel: Mapping[str, str],
) -> dict[str, Any]:
    """Return everything that a store's key is made of, JSON-able. Samples are no part of it: each has its own digest.

    tower: `tower_digest`. name: the tower's class, for people. depth: the first blocks whose output it holds; None: the
    tower's. layers: the last blocks whose outputs stand beside it. dtype: in which it is computed. kept: in which it is
    kept. processor: what the tower's processor describes. kernel: `kernel_facts`.
    """
    return {
        "format": FORMAT,
        "tower": tower,
        "name": name,
        "modality": modality,
        "depth": depth,
        "layers": layers,
        "dtype": str(dtype),
        "kept": str(kept),
        "processor": processor,
        "kernel": dict(kernel),
        "shapes": {"images": IMAGES_A_CALL, "tokens": TOKENS_A_CALL, "bucket": BUCKET_TOKENS},
    }


def store_key(facts: Mapping[str, Any]) -> str:
    """Return the key, 64 hexadecimal digits, of what `store_facts` gathered."""
    return hashlib.sha256(_canonical_json(facts)).hexdigest()


def _adapted(part: nn.Module) -> bool:
    return isinstance(getattr(part, "scaling", None), dict)


def _chosen_kernels() -> str:
    """Return which kernels a program allows itself: attention may sum in another order, and products in fewer bits."""
    attention = [name for name in ATTENTION if getattr(torch.backends.cuda, f"{name}_sdp_enabled")()]
    parts = {
        "attention": attention,
        "float32": torch.get_float32_matmul_precision(),
        "mkldnn": torch.backends.mkldnn.enabled,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    return json.dumps(parts)


def _canonical_json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _cudnn_version() -> int | None:
    version: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]  # torch lacks the annotation
    return version


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "none"
