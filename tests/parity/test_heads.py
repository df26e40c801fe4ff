"""Fusion heads against the classes of transformers: the same random weights give the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from renaissance.api import Features, Output, TowerFacts
from renaissance.builtin.fusion import co_attention, lxmert
from renaissance.builtin.fusion_bridge import bridge
from renaissance.builtin.fusion_entries import (
    BridgeOptions,
    CrossOptions,
    MergedOptions,
    QFormerOptions,
    TextCrossOptions,
)
from renaissance.builtin.fusion_merged import merged_attention
from renaissance.builtin.fusion_text import q_former, text_cross_attention

WIDTH, VISION = 16, 12
SIZES: dict[str, Any] = {"layers": 3, "width": WIDTH, "heads": 2, "dropout": 0.0}
REFERENCE = {"hidden_size": WIDTH, "num_attention_heads": 2, "intermediate_size": 64, "num_hidden_layers": 3}
TOWERS: dict[str, Any] = {"vision": TowerFacts(VISION, True), "text": TowerFacts(WIDTH, True)}
EVERY: frozenset[Output] = frozenset({"vision", "text", "pooled"})


def randomised(module: Any) -> Any:
    torch.manual_seed(3)
    for parameter in module.parameters():
        with torch.no_grad():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return module.eval()


def inputs() -> tuple[Features, Features]:
    """Return a vision stream [3, 5, 12] and a text stream [3, 6, 16], both with padding."""
    torch.manual_seed(2)
    vision_mask = torch.arange(5) < torch.tensor([[5], [3], [4]])
    text_mask = torch.arange(6) < torch.tensor([[4], [6], [2]])
    return Features(torch.randn(3, 5, VISION), vision_mask), Features(torch.randn(3, 6, WIDTH), text_mask)


def copy(theirs: nn.Module, ours: nn.Module) -> None:
    ours.load_state_dict(theirs.state_dict())


def copy_attention(theirs: Any, output: Any, ours: Any) -> None:
    """Copy query, key, value and the output's dense layer into an `Attention`."""
    for part in ("query", "key", "value"):
        copy(getattr(theirs, part), getattr(ours, part))
    copy(output.dense, ours.output)


def copy_attention_layer(theirs: Any, output: Any, ours: Any) -> None:
    copy_attention(theirs, output, ours.attention)
    copy(output.LayerNorm, ours.end.norm)


def copy_mlp(intermediate: Any, output: Any, ours: Any) -> None:
    copy(intermediate.dense, ours.inner)
    copy(output.dense, ours.outer)
    copy(output.LayerNorm, ours.end.norm)


def test_lxmert_is_the_stack_of_lxmert_x_layers(parity: Callable[[str], Any]) -> None:
    same = parity("transformers.LxmertXLayer").close
    from transformers import LxmertConfig
    from transformers.models.lxmert.modeling_lxmert import LxmertXLayer

    config = LxmertConfig(**REFERENCE)
    fusion = lxmert(CrossOptions(**SIZES), **TOWERS).eval()
    vision, text = inputs()
    v, t = fusion.vision_projection(vision.tokens), fusion.text_projection(text.tokens)
    blocked = [(~f.mask).float()[:, None, None, :] * torch.finfo(torch.float32).min for f in (vision, text)]
    for layer in fusion.layers:
        theirs: Any = randomised(LxmertXLayer(config))
        copy_attention_layer(theirs.visual_attention.att, theirs.visual_attention.output, layer.cross)
        copy_attention_layer(theirs.lang_self_att.self, theirs.lang_self_att.output, layer.text_self)
        copy_attention_layer(theirs.visn_self_att.self, theirs.visn_self_att.output, layer.vision_self)
        copy_mlp(theirs.lang_inter, theirs.lang_output, layer.text_mlp)
        copy_mlp(theirs.visn_inter, theirs.visn_output, layer.vision_mlp)
        t, v = theirs(t, blocked[1], v, blocked[0])[:2]
    joint: Any = fusion(vision, text, EVERY)
    same("vision tokens", joint.vision.tokens, v, vision.mask)
    same("text tokens", joint.text.tokens, t, text.mask)


@pytest.mark.parametrize("class_token", [True, False])
def test_merged_attention_is_the_multimodal_model_of_flava(class_token: bool, parity: Callable[[str], Any]) -> None:
    same = parity("transformers.FlavaMultimodalModel").close
    from transformers import FlavaMultimodalConfig, FlavaMultimodalModel

    theirs: Any = randomised(FlavaMultimodalModel(FlavaMultimodalConfig(**REFERENCE, use_cls_token=class_token)))
    fusion: Any = merged_attention(MergedOptions(**SIZES, class_token=class_token), **TOWERS).eval()
    for layer, ours in zip(theirs.encoder.layer, fusion.layers, strict=True):
        copy(layer.layernorm_before, ours.attention.start)
        copy_attention(layer.attention.attention, layer.attention.output, ours.attention.attention)
        copy(layer.layernorm_after, ours.mlp.start)
        copy(layer.intermediate.dense, ours.mlp.inner)
        copy(layer.output.dense, ours.mlp.outer)
    copy(theirs.layernorm, fusion.norm)
    if class_token:
        fusion.class_token = nn.Parameter(theirs.cls_token.detach().clone())
        copy(theirs.pooler.dense, fusion.pooler.dense)
    vision, text = inputs()
    tokens = torch.cat((fusion.vision_projection(vision.tokens), fusion.text_projection(text.tokens)), dim=1)
    mask = torch.cat((torch.ones(3, int(class_token), dtype=torch.bool), vision.mask, text.mask), dim=1)
    expected = theirs(tokens, attention_mask=mask.long())
    joint = fusion(vision, text, EVERY)
    streams = expected.last_hidden_state[:, int(class_token) :]
    same("vision tokens", joint.vision.tokens, streams[:, :5], vision.mask)
    same("text tokens", joint.text.tokens, streams[:, 5:], text.mask)
    if class_token:
        same("pooled vector", joint.pooled, expected.pooler_output)


def copy_torch_attention(theirs: nn.MultiheadAttention, ours: Any) -> None:
    """Copy torch's attention, whose query, key and value are one matrix, into an `Attention`."""
    for part, weight, bias in zip(
        (ours.query, ours.key, ours.value), theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3), strict=True
    ):
        part.load_state_dict({"weight": weight, "bias": bias})
    copy(theirs.out_proj, ours.output)


def test_pre_norm_co_attention_is_two_stacks_of_torchs_pre_norm_decoder_layers(parity: Callable[[str], Any]) -> None:
    same = parity("torch.nn.TransformerDecoderLayer").close
    options = CrossOptions(**SIZES, norm="pre", norm_eps=1e-5)
    fusion: Any = randomised(co_attention(options, **TOWERS))
    vision, text = inputs()
    streams = {
        "vision": (fusion.vision_projection(vision.tokens), vision.mask),
        "text": (fusion.text_projection(text.tokens), text.mask),
    }
    for layer in fusion.layers:
        following = {}
        for name, other in (("vision", "text"), ("text", "vision")):
            own, cross, mlp = (getattr(layer, f"{name}_{part}") for part in ("self", "cross", "mlp"))
            theirs: Any = randomised(
                nn.TransformerDecoderLayer(
                    WIDTH, 2, 4 * WIDTH, 0.0, nn.functional.gelu, norm_first=True, batch_first=True
                )
            )
            copy_torch_attention(theirs.self_attn, own.attention)
            copy_torch_attention(theirs.multihead_attn, cross.attention)
            for norm, ours in ((theirs.norm1, own.start), (theirs.norm2, cross.start), (theirs.norm3, mlp.start)):
                copy(norm, ours)
            copy(theirs.linear1, mlp.inner)
            copy(theirs.linear2, mlp.outer)
            tokens, mask = streams[name]
            context, context_mask = streams[other]
            following[name] = (
                theirs(
                    tokens,
                    cross.context_start(context),  # torch's memory is normed where it comes from
                    tgt_key_padding_mask=~mask,
                    memory_key_padding_mask=~context_mask,
                ),
                mask,
            )
        streams = following
    joint: Any = fusion(vision, text, EVERY)
    for name in ("vision", "text"):
        tokens, mask = streams[name]
        same(f"{name} tokens", getattr(joint, name).tokens, getattr(fusion, f"{name}_norm")(tokens), mask)


def test_text_cross_attention_is_the_text_encoder_of_blip(parity: Callable[[str], Any]) -> None:
    same = parity("transformers.BlipTextModel").close
    from transformers import BlipTextConfig
    from transformers.models.blip.modeling_blip_text import BlipTextModel

    config = BlipTextConfig(**REFERENCE, encoder_hidden_size=VISION, is_decoder=True)
    theirs: Any = randomised(BlipTextModel(config))
    fusion: Any = text_cross_attention(TextCrossOptions(**SIZES), **TOWERS).eval()
    for layer, block, cross in zip(theirs.encoder.layer, fusion.blocks, fusion.cross, strict=True):
        copy_attention_layer(layer.attention.self, layer.attention.output, block.attention)
        copy_attention_layer(layer.crossattention.self, layer.crossattention.output, cross)
        copy_mlp(layer.intermediate, layer.output, block.mlp)
    copy(theirs.pooler.dense, fusion.pooler.dense)
    vision, text = inputs()
    joint = fusion(vision, text, EVERY)
    for row, patches in enumerate(vision.mask.sum(1)):  # the reference drops the mask of cross attention: cut, not pad
        expected = theirs(
            encoder_embeds=text.tokens[row : row + 1],
            attention_mask=text.mask[row : row + 1].long(),
            encoder_hidden_states=vision.tokens[row : row + 1, :patches],
            is_decoder=False,
        )
        same("text tokens", joint.text.tokens[row], expected.last_hidden_state[0], text.mask[row])
        same("pooled vector", joint.pooled[row], expected.pooler_output[0])


@pytest.mark.parametrize("deviation", [1.0, 0.02], ids=["wide queries", "queries as they start"])
def test_q_former_is_that_of_blip_2(deviation: float, parity: Callable[[str], Any]) -> None:
    same = parity("transformers.Blip2QFormerModel").close
    from transformers import Blip2QFormerConfig, Blip2QFormerModel

    config = Blip2QFormerConfig(
        **REFERENCE, encoder_hidden_size=VISION, cross_attention_frequency=2, use_qformer_text_input=True
    )
    theirs: Any = randomised(Blip2QFormerModel(config))
    fusion: Any = q_former(QFormerOptions(**SIZES, queries=4, cross_every=2, pooler="none"), **TOWERS).eval()
    nn.init.normal_(fusion.queries, std=deviation)  # small ones feel the epsilon of the norm
    copy(theirs.layernorm, fusion.query_norm)
    copy(theirs.layernorm, fusion.text_norm)
    cross = iter(fusion.cross)
    for layer, block, mlp in zip(theirs.encoder.layer, fusion.blocks, fusion.query_mlps, strict=True):
        copy_attention_layer(layer.attention.attention, layer.attention.output, block.attention)
        if layer.has_cross_attention:
            copy_attention_layer(layer.crossattention.attention, layer.crossattention.output, next(cross))
        copy_mlp(layer.intermediate, layer.output, block.mlp)
        copy_mlp(layer.intermediate_query, layer.output_query, mlp)
    vision, text = inputs()
    expected = theirs(
        query_embeds=torch.cat((fusion.queries.expand(3, -1, -1), text.tokens), dim=1),
        query_length=4,
        attention_mask=torch.cat((torch.ones(3, 4), text.mask), dim=1).long(),
        encoder_hidden_states=vision.tokens,
        encoder_attention_mask=vision.mask[:, None, None, :],  # a 2-D one would be widened to queries and text
    ).last_hidden_state
    joint = fusion(vision, text, EVERY)
    assert next(cross, None) is None
    same("vision tokens", joint.vision.tokens, expected[:, :4])
    same("text tokens", joint.text.tokens, expected[:, 4:], text.mask)
    same("pooled vector", joint.pooled, expected[:, :4].mean(1))


def copy_bridge(theirs: Any, fusion: Any) -> None:
    """Copy BridgeTowerModel's fusion; its token types are added to the biases of the projections."""
    copy(theirs.vision_model.visual.ln_post, fusion.vision_links.before)
    for name, links, kind in (("image", fusion.vision_links, 1), ("text", fusion.text_links, 0)):
        copy(getattr(theirs, f"cross_modal_{name}_transform"), links.projections[0])
        links.projections[0].bias.data += theirs.token_type_embeddings.weight[kind]
        towers = getattr(theirs, f"cross_modal_{name}_link_tower")
        norms = [getattr(theirs, f"cross_modal_{name}_layernorm"), *(link.LayerNorm for link in towers)]
        for norm, ours in zip(norms, links.norms, strict=True):
            copy(norm, ours)
    for name, stream in (("image", "vision"), ("text", "text")):
        for layer, ours in zip(getattr(theirs, f"cross_modal_{name}_layers"), fusion.layers, strict=True):
            copy_attention_layer(layer.attention.self, layer.attention.output, getattr(ours, f"{stream}_self"))
            cross = layer.crossattention
            copy_attention_layer(cross.self, cross.output, getattr(ours, f"{stream}_cross"))
            copy_mlp(layer.intermediate, layer.output, getattr(ours, f"{stream}_mlp"))
        copy(getattr(theirs, f"cross_modal_{name}_pooler").dense, getattr(fusion, f"{stream}_pooler").dense)


def test_bridge_is_the_fusion_of_bridge_tower(parity: Callable[[str], Any]) -> None:
    same = parity("transformers.BridgeTowerModel (fusion)").close
    from transformers import BridgeTowerConfig, BridgeTowerModel

    vision_width = 64  # the reference has one head for each 64
    text = {**REFERENCE, "num_hidden_layers": 4, "vocab_size": 30, "max_position_embeddings": 16}
    image = {"hidden_size": vision_width, "num_hidden_layers": 4, "patch_size": 8, "image_size": 16}
    theirs: Any = randomised(BridgeTowerModel(BridgeTowerConfig(**REFERENCE, text_config=text, vision_config=image)))
    towers = {"vision": TowerFacts(vision_width, True), "text": TowerFacts(WIDTH, True)}
    fusion: Any = bridge(BridgeOptions(**SIZES, norm_eps=1e-5), **towers).eval()
    copy_bridge(theirs, fusion)
    mask = torch.arange(6) < torch.tensor([[4], [6], [2]])
    ids = torch.randint(2, 30, (3, 6)).masked_fill(~mask, 1)
    expected = theirs(ids, mask.long(), pixel_values=torch.randn(3, 3, 16, 16), output_hidden_states=True)
    text_layers, image_layers = expected.hidden_states[:2]
    image_layers = tuple(layer.transpose(0, 1) for layer in image_layers)  # [P, N, D]
    joint = fusion(
        Features(image_layers[-1], torch.ones(3, 5, dtype=torch.bool), layers=image_layers[-3:]),
        Features(text_layers[-1], mask, layers=text_layers[-3:]),
        EVERY,
    )
    same("vision tokens", joint.vision.tokens, expected.image_features)
    same("text tokens", joint.text.tokens, expected.text_features, mask)
    same("pooled vector", joint.pooled, torch.cat(expected.pooler_output.split(WIDTH, dim=-1)[::-1], dim=-1))
