"""Text towers of open_clip models as text backbones.

Tokens are those after the final norm. The pooled vector is the text feature that the model compares with images; where
its projection changes the width, the vector before the projection is given and the projection is dropped. A causal
tower reads texts of any length up to its context. The others (SigLIP, CoCa) were trained on texts padded to the full
context and see the padding, so they are always given all of it. Either way padding changes nothing.

Towers that are a Hugging Face model (such as roberta-ViT-B-32) are refused: `transformers:` builds these.

No one-tower model is based on such a tower: the tokens of one kind attend only to those before them, those of the other
to padding. Its embeddings can be the words of one.

Letters in shapes: T texts, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from open_clip.transformer import TextTransformer, text_global_pool
from torch import Tensor, nn
from torch.nn import functional

from renaissance.api import Features, Positions, SavedBackbone, TextInput, Weights
from renaissance.builtin.open_clip_library import (
    chosen_config,
    create_tower,
    pretrained_commit,
    pretrained_state,
    refusal,
)
from renaissance.builtin.open_clip_tokenizer import OpenClipTokenizer
from renaissance.errors import CapabilityError, ModelFileError, RenaissanceError, SpecError
from renaissance.toolkit.building import LooseParameters, build_empty, drop_parts
from renaissance.toolkit.layered import layer_indices

if TYPE_CHECKING:
    from renaissance.builtin.open_clip_entries import OpenClipTextOptions


class State(NamedTuple):
    """Between two blocks: tokens [T, L', D], what each attends to, the ids [T, L''] and the caller's mask [T, L].

    L' is L'' and the class token that CoCa appends; L'' is L, or the full context for towers that need it.
    """

    tokens: Tensor
    attention_mask: Tensor | None
    token_ids: Tensor
    mask: Tensor


class OpenClipText(nn.Module):
    """The text tower of an open_clip model. Token 0 stands for nothing: the pooled vector is at the end of the text."""

    class_token = False
    positions: Positions = "absolute"

    def __init__(
        self, tower: Any, processor: OpenClipTokenizer, *, facts: Mapping[str, Any], revision: str | None = None
    ) -> None:
        super().__init__()
        self.tower = tower
        self.processor = processor
        self.width: int = facts["width"]
        self.revision = revision
        self._facts = dict(facts)
        # what stands at the end of the context is read, or every token sees the padding
        self._full_context = tower.attn_mask is None or tower.cls_emb is not None or tower.pool_type == "last"

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The residual blocks in order."""
        return tuple(self.tower.transformer.resblocks)

    @property
    def embeddings(self) -> Sequence[nn.Module]:
        """Word embeddings, and a view of positions and class token."""
        names = [name for name in ("positional_embedding", "cls_emb") if getattr(self.tower, name) is not None]
        return self.tower.token_embedding, LooseParameters(self.tower, names)

    @property
    def final(self) -> Sequence[nn.Module]:
        """The last norm, and the projection where it is kept."""
        projection = self.tower.text_projection
        if projection is None:
            return (self.tower.ln_final,)
        kept = projection if isinstance(projection, nn.Module) else LooseParameters(self.tower, ("text_projection",))
        return self.tower.ln_final, kept

    def forward(self, inputs: TextInput, layers: Sequence[int] = ()) -> Features:
        """Encode token ids [T, L] with their mask [T, L] (True: real); return tokens [T, L, D].

        Raises:
            SpecError: L is greater than the context, or a layer does not exist.
            CapabilityError: the texts have segments, or embeddings that the tower cannot take.
        """
        depth = len(self.blocks)
        wanted = layer_indices(layers, depth)
        state = self.embed(inputs)
        outputs = {}
        for index in range(depth):
            state = self.step(index, state)
            if index in wanted:
                outputs[index] = state.tokens[:, : inputs.mask.shape[1]]
        features = self.finish(state)
        return Features(features.tokens, features.mask, features.pooled, tuple(outputs[index] for index in wanted))

    def embed(self, inputs: TextInput) -> State:
        """Return the state before the first block."""
        self._check(inputs, padded=self._full_context)
        pad = self.processor.facts.pad_id
        missing = self.tower.context_length - inputs.mask.shape[1] if self._full_context else 0
        token_ids = functional.pad(inputs.token_ids.masked_fill(~inputs.mask, pad), (0, missing), value=pad)
        if inputs.embeddings is not None:
            length = token_ids.shape[1]
            return State(
                inputs.embeddings + self.tower.positional_embedding[:length],
                _of_length(self.tower.attn_mask, length),
                token_ids,
                inputs.mask,
            )
        tokens, attention_mask = self.tower._embeds(token_ids)
        if attention_mask is not None and attention_mask.dim() == 2:
            attention_mask = _of_length(attention_mask, tokens.shape[1])
        return State(tokens, attention_mask, token_ids, inputs.mask)

    def step(self, index: int, state: State) -> State:
        """Run one block."""
        block = self.tower.transformer.resblocks[index]
        return state._replace(tokens=block(state.tokens, attn_mask=state.attention_mask))

    def finish(self, state: State) -> Features:
        """Return the tokens [T, L, D] after the final norm, and the text feature [T, D]."""
        tokens = self.tower.ln_final(state.tokens)
        if self.tower.cls_emb is not None:
            pooled = tokens[:, -1]
        else:
            pooled = text_global_pool(tokens, state.token_ids, self.tower.pool_type, self.tower.eos_id)  # [T, D]
        projection = self.tower.text_projection
        if projection is not None:
            pooled = projection(pooled) if isinstance(projection, nn.Module) else pooled @ projection
        return Features(tokens[:, : state.mask.shape[1]], state.mask, pooled)

    def embedded(self, inputs: TextInput) -> Features:
        """Return words with their positions [T, L, D], before the first block.

        Raises:
            SpecError: L is greater than the context.
            CapabilityError: the texts have segments.
        """
        self._check(inputs, padded=False)
        words = self.tower.token_embedding(inputs.token_ids) if inputs.embeddings is None else inputs.embeddings
        return Features(words + self.tower.positional_embedding[: words.shape[1]], inputs.mask)

    def keep_embeddings(self) -> None:
        """Drop the blocks and what follows them, for good: `embedded` is all that still works."""
        self.tower.transformer.resblocks, self.tower.ln_final = nn.ModuleList(), nn.Identity()
        self.tower.text_projection = self.tower.cls_emb = None
        self.tower.positional_embedding = nn.Parameter(self.tower.positional_embedding[: self.tower.context_length])
        self._facts["embeddings_only"] = True

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write the tokenizer's files into `folder`; return the config from which `build` builds the tower again."""
        self.processor.save(folder)
        return {**self._facts, "commit": self.revision}

    def _check(self, inputs: TextInput, *, padded: bool) -> None:
        """Refuse what the tower cannot read; `padded`: it is to read its padding as well."""
        name, length = f"open-clip:{self._facts['model']}", inputs.mask.shape[1]
        if length > self.tower.context_length:
            raise SpecError(f"{name} reads {self.tower.context_length} tokens, not {length}. Shorten the texts.")
        if inputs.segment_ids is not None:
            raise CapabilityError(f"{name} knows no segments. Give it one text at a time.")
        if inputs.embeddings is not None and padded:
            raise CapabilityError(
                f"{name} reads its padding from token ids, so it takes no embeddings. Choose another."
            )


def _of_length(attention_mask: Tensor, length: int) -> Tensor:
    """Return what `length` tokens attend to, [length, length], of what those of a whole context do.

    A copy: a slice is contiguous at the length of the context alone, which export takes for a case of its own.
    """
    kept = torch.arange(length, device=attention_mask.device)
    return attention_mask[kept[:, None], kept]


def build(options: OpenClipTextOptions, *, weights: Weights, saved: SavedBackbone | None = None) -> OpenClipText:
    """Return the text tower of an open_clip model as a backbone.

    Raises:
        UnknownComponentError: open_clip has no such model, or the model no such weights.
        SpecError: the model does not accept the options, or its text tower is a Hugging Face model.
        HubError: its weights or its tokenizer cannot be fetched.
        ModelFileError: `saved` is not what `OpenClipText.save` returned, or does not fit the installed open_clip.
    """
    if weights == "none":
        assert saved is not None, "weights='none' builds from a saved config"
        return _rebuild(saved)
    if weights == "pretrained" and options.overrides:
        raise SpecError(
            f"open-clip:{options.model}: pretrained weights fit no overrides. Drop these, or add 'random text'."
        )
    config = chosen_config(options.model, options.revision, "text", options.overrides)
    _check_native(options.model, config["text_cfg"])
    processor = OpenClipTokenizer.of_model(options.model, config["text_cfg"])
    state = pretrained_state(options.model, options.revision, "text") if weights == "pretrained" else None
    try:
        tower = _created(config)
    except RenaissanceError:
        raise
    except Exception as error:  # open_clip checks little: a wrong option may fail anywhere in its code
        raise SpecError(refusal(options.model, error)) from error
    if state is not None:
        tower.load_state_dict(state, strict=True)
    _cut(tower, options)
    facts = _measure(tower, options, config)
    drop_parts(tower, facts["unused"])
    commit = pretrained_commit(options.model, options.revision) if weights == "pretrained" else None
    return OpenClipText(tower, processor, facts=facts, revision=commit)


def _rebuild(saved: SavedBackbone) -> OpenClipText:
    """Return the tower without weights: nothing is initialised that loading overwrites."""
    facts = {key: value for key, value in saved.config.items() if key != "commit"}
    processor = OpenClipTokenizer.load(saved.folder)
    try:
        tower = build_empty(lambda: _created(facts["config"]))
        tower.transformer.resblocks = tower.transformer.resblocks[: facts["depth"]]
        drop_parts(tower, facts["unused"])
        backbone = OpenClipText(tower, processor, facts=facts, revision=saved.config.get("commit"))
        if facts.get("embeddings_only", False):
            backbone.keep_embeddings()
        return backbone
    except Exception as error:  # whatever fails here, the saved config and the installed open_clip do not fit
        raise ModelFileError(
            f"The saved config of an open_clip tower does not fit the installed open_clip ({type(error).__name__}: "
            f"{error}). Install the version of open_clip that the model was saved with."
        ) from error


def _created(config: Mapping[str, Any]) -> Any:
    return create_tower(config, "text")


def _check_native(model: str, text_config: Mapping[str, Any]) -> None:
    name = text_config.get("hf_model_name")
    if name:
        raise SpecError(
            f"open-clip:{model}: its text tower is the Hugging Face model {name!r}. Try 'transformers:{name}'."
        )


def _cut(tower: TextTransformer, options: OpenClipTextOptions) -> None:
    depth = len(tower.transformer.resblocks)
    if options.layers is None:
        return
    if options.layers > depth:
        raise SpecError(
            f"open-clip:{options.model} has {depth} blocks; {options.layers} cannot be kept. Ask for fewer."
        )
    tower.transformer.resblocks = tower.transformer.resblocks[: options.layers]


def _measure(tower: TextTransformer, options: OpenClipTextOptions, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of a tower, JSON-able. Every part of it is used, but for a projection to another width."""
    projection = tower.text_projection
    widths = [] if projection is None else list(getattr(projection, "weight", projection).shape)
    if tower.pool_type == "none":
        raise SpecError(f"open-clip:{options.model}: its text tower pools nothing. Choose another text backbone.")
    return {
        "model": options.model if options.revision is None else f"{options.model}@{options.revision}",
        "config": {name: config[name] for name in ("embed_dim", "quick_gelu", "text_cfg")},
        "width": tower.width,
        "depth": len(tower.transformer.resblocks),
        "unused": ["text_projection"] if len(set(widths)) > 1 else [],
    }
