"""The Perceiver resampler of Flamingo (arXiv 2204.14198, section 2.1 and appendix A.1.1).

Letters: B items, N tokens of an image, M latents, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renaissance.toolkit.dropout import Dropout
from renaissance.toolkit.recompute import run
from renaissance_plugin_resampler.entries import Activation, ResamplerOptions

ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "squared-relu": lambda hidden: F.relu(hidden).square(),
    "relu": F.relu,
    "gelu": F.gelu,
}


class PerceiverAttention(nn.Module):
    """Latents attend to the image and to themselves in one softmax; nothing in it has a bias but the norms."""

    def __init__(self, options: ResamplerOptions) -> None:
        super().__init__()
        width, eps = options.width, options.norm_eps
        self.heads = options.heads
        self.context_norm = nn.LayerNorm(width, eps=eps)
        self.latents_norm = nn.LayerNorm(width, eps=eps)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.query_norm = _head_norm(options)
        self.key_norm = _head_norm(options)
        self.output = nn.Linear(width, width, bias=False)

    def forward(self, latents: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Return what latents [B, M, W] gather; context [B, N, W], mask bool [B, N + M] of both, True where real."""
        own = self.latents_norm(latents)
        seen = torch.cat((self.context_norm(context), own), dim=1)  # [B, N + M, W]
        q, k, v = (self._heads(part) for part in (self.query(own), self.key(seen), self.value(seen)))
        q, k = self.query_norm(q), self.key_norm(k)
        gathered = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])  # [B, heads, M, W / heads]
        return self.output(gathered.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]  # nn.Module.__call__

    def _heads(self, tokens: Tensor) -> Tensor:
        items, count, width = tokens.shape
        return tokens.view(items, count, self.heads, width // self.heads).transpose(1, 2)


class PerceiverLayer(nn.Module):
    """Attention, then an MLP without biases, each before a residual."""

    def __init__(self, options: ResamplerOptions) -> None:
        super().__init__()
        width, hidden = options.width, int(options.width * options.mlp_ratio)
        self.attention = PerceiverAttention(options)
        self.norm = nn.LayerNorm(width, eps=options.norm_eps)
        self.inner = nn.Linear(width, hidden, bias=False)
        self.activation = ACTIVATIONS[options.activation]
        self.outer = nn.Linear(hidden, width, bias=False)
        self.dropout = Dropout(options.dropout)

    def forward(self, latents: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Return the next latents [B, M, W]; context [B, N, W], mask bool [B, N + M] of both."""
        latents = latents + self.dropout(self.attention(latents, context, mask))
        hidden = self.activation(self.inner(self.norm(latents)))
        return latents + self.dropout(self.outer(hidden))  # type: ignore[no-any-return]  # nn.Module.__call__


class PerceiverResampler(nn.Module):
    """However many tokens an image has, a fixed number of latents comes out."""

    def __init__(self, options: ResamplerOptions) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.empty(options.latents, options.width))
        self.layers = nn.ModuleList(PerceiverLayer(options) for _ in range(options.resampler_layers))
        self.norm = nn.LayerNorm(options.width, eps=options.norm_eps)
        nn.init.normal_(self.latents, std=0.02)

    def forward(self, context: Tensor, mask: Tensor, *, recompute: bool = False) -> Tensor:
        """Resample image tokens [B, N, W] with their mask bool [B, N] to [B, M, W]."""
        latents = self.latents.expand(context.shape[0], -1, -1)
        both = F.pad(mask, (0, latents.shape[1]), value=True)  # [B, N + M]: latents are always real
        for layer in self.layers:
            latents = run(layer, recompute, latents, context, both)
        return self.norm(latents)  # type: ignore[no-any-return]  # nn.Module.__call__


def _head_norm(options: ResamplerOptions) -> nn.Module:
    return nn.LayerNorm(options.width // options.heads, eps=options.norm_eps) if options.qk_norm else nn.Identity()
