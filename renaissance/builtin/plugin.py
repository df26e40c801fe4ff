"""The built-in plugin: what renaissance itself offers, through the same three hooks as everyone."""

from __future__ import annotations

from renaissance.api import BackboneEntry, FusionHeadEntry, TaskEntry, hookimpl
from renaissance.builtin.downstream_entries import DOWNSTREAM
from renaissance.builtin.fusion_entries import FUSION_HEADS
from renaissance.builtin.open_clip_entries import BACKBONES as OPEN_CLIP
from renaissance.builtin.post_norm_entries import BACKBONES as POST_NORM
from renaissance.builtin.task_entries import TASKS
from renaissance.builtin.timm_entries import BACKBONES as TIMM
from renaissance.builtin.transformers_entries import BACKBONES as TRANSFORMERS


@hookimpl
def register_backbones() -> tuple[BackboneEntry, ...]:
    """Offer the backbones of three libraries, short names of the paper's towers, and a post-norm ViT."""
    return (*TRANSFORMERS, *TIMM, *OPEN_CLIP, *POST_NORM)


@hookimpl
def register_fusion_heads() -> tuple[FusionHeadEntry, ...]:
    """Offer lxmert, co-attention and dual."""
    return FUSION_HEADS


@hookimpl
def register_tasks() -> tuple[TaskEntry, ...]:
    """Offer what is pretrained with, what is fine-tuned for, and what measures alone."""
    return (*TASKS, *DOWNSTREAM)
