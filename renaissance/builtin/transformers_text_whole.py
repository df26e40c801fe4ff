"""Text encoders of `transformers` of types whose blocks we do not know: they run as the library runs them.

What the library's model does is seen when it is built, by running it (`seen_in`): which parts its tokens depend on,
and whether padding changes them although it is masked. Some do not mask everywhere: convolutions reach into the
padding, and Fourier transforms and landmarks are computed over all of it. These are given texts of one length at a
time, without padding.

Letters in shapes: T texts, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig

from renaissance.api import Features, TextInput
from renaissance.builtin.transformers_options import Pooling
from renaissance.builtin.transformers_plain import plain_model
from renaissance.builtin.transformers_refusals import refuse_layers
from renaissance.builtin.transformers_sizes import text_sizes
from renaissance.builtin.transformers_text_families import FAMILIES
from renaissance.builtin.transformers_text_towers import model_arguments, pool
from renaissance.errors import CapabilityError, SpecError
from renaissance.toolkit.building import drop_parts, unused_parts
from renaissance.toolkit.quiet import quiet
from renaissance.toolkit.text import WordTokenizer

DEFAULT_MAX_TOKENS = 512
# of the texts that show what a model does; no model has so few words
PROBED_TOKENS, PROBED_PADDING, PROBED_WORDS = 7, 6, 64


class WholeText(nn.Module):
    """A text encoder that lists no blocks. `config` is what it is built again from."""

    blocks: Sequence[nn.Module] = ()
    embeddings: Sequence[nn.Module] = ()
    final: Sequence[nn.Module] = ()

    def __init__(self, model: nn.Module, processor: WordTokenizer, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.processor = processor
        self.config = config
        self.pooling: Pooling = config["pooling"]
        self.class_token = self.pooling == "first"
        self.width = width_of(model)
        self.revision: str | None = config["revision"]

    def forward(self, inputs: TextInput, layers: Sequence[int] = ()) -> Features:
        """Encode token ids [T, L] (or embeddings [T, L, E]) with their mask [T, L]; return tokens [T, L, D].

        Raises:
            SpecError: a text is longer than the model takes, or layers are asked for.
        """
        refuse_layers(layers)
        tokens = by_length(self._tokens, inputs) if self.config["by_length"] else self._tokens(inputs)
        return Features(tokens, inputs.mask, pool(tokens, inputs.mask, self.pooling))

    def _tokens(self, inputs: TextInput) -> Tensor:
        """Return tokens [T, L, D]."""
        return cast(Tensor, self.model(**model_arguments(self.model, inputs, self.processor)).last_hidden_state)

    def resize(self, size: int) -> tuple[str, ...]:
        """Take texts of up to `size` tokens from now on; no tensor changes.

        Raises:
            SpecError: the model takes no texts of that length.
        """
        longest = text_sizes(cast(PreTrainedConfig, self.model.config)).get("max_tokens", DEFAULT_MAX_TOKENS)
        if size > longest:
            raise SpecError(
                f"This text model takes up to {longest} tokens, not {size}: of its type nothing is known that could "
                f"be continued. Use {longest} or fewer, or a model of one of these types: "
                f"{', '.join(sorted(FAMILIES))}."
            )
        self.processor = self.processor.with_max_tokens(size)
        return ()

    def to_transformers(self) -> nn.Module:
        """Return a copy as a plain model of `transformers`.

        Raises:
            CapabilityError: it has adapters.
        """
        return plain_model(self.model, (), "", self.config, add_pooling_layer=self.config.get("pooler", False))

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write the tokenizer's files; return the config."""
        self.processor.save(folder)
        return self.config


def width_of(model: nn.Module) -> int:
    """Return how many channels the tokens of a model have.

    Raises:
        SpecError: the library's class does not say it.
    """
    width = getattr(getattr(model, "config", None), "hidden_size", None)
    if not isinstance(width, int):
        raise SpecError(f"{type(model).__name__} of transformers does not say its width. Choose another text encoder.")
    return width


def by_length(run: Callable[[TextInput], Tensor], inputs: TextInput) -> Tensor:
    """Return tokens [T, L, D] of texts padded on the right, each run only beside others of its length.

    Raises:
        CapabilityError: it is being exported, and a graph cannot do that.
    """
    if inputs.mask.is_meta:  # no text has a length there
        return run(inputs)
    if torch.compiler.is_exporting():
        raise CapabilityError("padding changes what it gives, so that it sorts texts by their lengths")
    lengths, width = inputs.mask.sum(1), inputs.mask.shape[1]
    rows = [(lengths == length).nonzero().squeeze(1) for length in sorted(set(lengths.tolist()))]
    runs = [run(_rows(inputs, chosen, int(lengths[chosen[0]].clamp(min=1)))) for chosen in rows]
    padded = torch.cat([functional.pad(tokens, (0, 0, 0, width - tokens.shape[1])) for tokens in runs])  # [T, L, D]
    return padded[torch.cat(rows).argsort()]


def _rows(inputs: TextInput, rows: Tensor, length: int) -> TextInput:
    """Return some of the texts, cut to a length that none of them exceeds."""
    segments, embeddings, words = inputs.segment_ids, inputs.embeddings, inputs.words
    return TextInput(
        inputs.token_ids[rows, :length],
        inputs.mask[rows, :length],
        None if segments is None else segments[rows, :length],
        None if embeddings is None else embeddings[rows, :length],
        None if words is None else words[rows, :length],
    )


@dataclass(frozen=True, slots=True)
class Seen:
    """What a run of a model shows. unused: names of the parts that its tokens do not depend on."""

    by_length: bool
    unused: tuple[str, ...]


class Skipped(nn.Module):
    """Stands where a part was on which no token depends; what it is called with goes on as it came."""

    def forward(self, hidden: Tensor, *others: Any, **named: Any) -> Tensor:
        """Return hidden."""
        return hidden


def drop_unused(model: nn.Module, names: Sequence[str]) -> None:
    """Drop these parts of a model, on which no token depends."""
    drop_parts(model, names)
    for name in names:
        path, _, attribute = name.rpartition(".")
        if isinstance(getattr(model.get_submodule(path), attribute), nn.Identity):
            setattr(model.get_submodule(path), attribute, Skipped())


def seen_in(model: nn.Module, name: str) -> Seen:
    """Run a model, and return what that shows; `name` is how the user calls it.

    Raises:
        SpecError: it cannot be run, or its tokens do not depend on each other, or on chance.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        return Seen(by_length=False, unused=())
    training = model.training
    model.eval()
    try:
        with quiet():
            return _seen(model, name)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, AssertionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise SpecError(
            f"{name}: texts cannot be run through this model ({reason}). Change its sizes or overrides."
        ) from error
    finally:
        model.train(training)


def _seen(model: nn.Module, name: str) -> Seen:
    ids = torch.arange(5, 5 + PROBED_TOKENS).unsqueeze(0)
    with torch.enable_grad():
        unused = unused_parts(model, (_run(model, ids),))
    with torch.no_grad():
        tokens, again = _run(model, ids), _run(model, ids)
        changed = _run(model, torch.cat((ids[:, :-1], ids[:, -1:] + 1), 1))
        longer = _run(model, functional.pad(ids, (0, PROBED_PADDING), value=PROBED_WORDS - 1), padding=PROBED_PADDING)
    if not torch.equal(tokens, again):
        raise SpecError(f"{name}: its tokens depend on chance, also in evaluation. Choose another text encoder.")
    if torch.equal(tokens[:, 0], changed[:, 0]):
        raise SpecError(
            f"{name}: its first token does not see the last one: it is no encoder, or its attention needs a kernel "
            "that is not installed. Choose another text encoder."
        )
    difference = (longer[:, :PROBED_TOKENS] - tokens).abs().max()
    return Seen(bool(difference > 1e-4 * tokens.abs().max()), unused)


def _run(model: nn.Module, ids: Tensor, *, padding: int = 0) -> Tensor:
    """Return tokens [1, L, D] of ids [1, L] that end with so much padding."""
    mask = (torch.arange(ids.shape[1]) < ids.shape[1] - padding).long().unsqueeze(0)
    device = next(model.parameters()).device
    output = model(input_ids=ids.to(device), attention_mask=mask.to(device))
    return cast(Tensor, output.last_hidden_state)
