"""The small input of a self-test, and what each stage of a model gives of it.

Each stage starts from what cannot differ from one machine to another: the towers see pixels that were picked from the
pictures and not resized.

Letters in shapes: B inputs, N tokens, D width, P pairs, H and W height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from renaissance.api import Batch, Features, Joint, Modality, Output, TextInput, VisionInput
from renaissance.assemble import Assembly
from renaissance.manifest import TOWERS
from renaissance.spec import shown
from renaissance.toolkit.modes import evaluating
from renaissance.toolkit.pooling import rows

SAMPLED = 1024  # values of each output that are kept, spread evenly
SIDES = ((72, 96), (80, 56))  # of the pictures, so that each is resized, and cropped where the model crops
TEXTS: tuple[str, ...] = (
    "a red cup on a table",
    "Two dogs, one of them BROWN, run; 3 cats sleep: naïve café, 東京 и снег!",
    "the small house beside the old tree has a green door and two round windows , and in front of it stand a blue "
    "car , a yellow bicycle without a bell , nine people who wait for the last train of the day , and a horse that "
    "looks at them as if it had never seen rain before",
)
PIXELS, TASK = "given/pixels", "task/"
_ALL: frozenset[Output] = frozenset({"vision", "text", "pooled"})


@dataclass(frozen=True, slots=True)
class Seen:
    """What tasks read: the encoded inputs."""

    encoder: Any
    vision: Features
    text: Features

    def view(self, task: str) -> tuple[Features | None, Features | None]:
        """Nothing is masked."""
        return None, None

    def represent(self, features: Features, modality: Modality) -> Tensor:
        """Return one vector [B, D] for each input."""
        vector: Tensor = self.encoder.represent(features, modality)
        return vector


def outputs(
    assembly: Assembly, pictures: Sequence[Tensor], texts: Sequence[str], left_out: dict[str, str]
) -> dict[str, Tensor]:
    """Return what each stage of a model on the CPU gives of pictures uint8 [3, H, W] and texts, sampled.

    left_out: what is not asked; heads that cannot be are added to it, with the reason.
    """
    encoder: Any = assembly.encoder
    images: VisionInput = encoder.vision.processor([_image(picture) for picture in pictures])
    words: TextInput = encoder.text.processor(list(texts))
    found = {PIXELS: images.pixels, "given/token_ids": words.token_ids, "given/text_mask": words.mask}
    with evaluating(assembly), torch.no_grad():
        vision, text = encoder.encode_vision(_picked(images, pictures)), encoder.encode_text(words)
        encoded = Seen(encoder, vision, text)
        found |= {**_streams("vision", vision), **_streams("text", text)}
        found |= {f"{kind}/vector": encoded.represent(getattr(encoded, kind), kind) for kind in TOWERS}
        joint = _fused(encoder, encoded, _pairs(encoded))
        found |= {} if joint is None else _joint(joint)
        for name, head in assembly.tasks.items():
            asked = _asked(name, head, encoded, joint, left_out)
            found |= {f"{TASK}{name}/{key}": value for key, value in asked.items()}
    return {name: _sampled(tensor) for name, tensor in found.items()}


def _fused(encoder: Any, encoded: Seen, pairs: Tensor) -> Joint | None:
    """Return the fusion of pairs int64 [P, 2]; None where the model fuses nothing."""
    wanted: frozenset[Output] = getattr(encoder, "outputs", _ALL)  # a one-tower model gives all of them
    if not wanted:
        return None
    joint: Joint = encoder.fuse(rows(encoded.vision, pairs[:, 0]), rows(encoded.text, pairs[:, 1]), wanted)
    return joint


def _asked(name: str, head: Any, encoded: Seen, joint: Joint | None, left_out: dict[str, str]) -> dict[str, Tensor]:
    """Return what a head says of the input: as `embed` and `match` ask it, or as an item is decided."""
    if name == "itc":
        return {kind: head.embed(encoded.represent(getattr(encoded, kind), kind), kind) for kind in TOWERS}
    if name == "itm" and joint is not None:
        return {"logits": head.predict(joint)}
    if name == "mlm" and joint is not None and joint.text is not None:
        return {"logits": head.predict(joint.text.tokens, joint.text.mask)}
    if callable(getattr(head, "decide", None)) and f"{TASK}{name}" not in left_out:
        try:
            return _decided(head, encoded)
        except Exception as error:  # a head of any plugin, given what may be no item for it
            left_out[f"{TASK}{name}"] = reason_of(error)
    return {}


def reason_of(error: Exception) -> str:
    """Return in a few words what went wrong."""
    return f"{type(error).__name__}: {shown(error, 100)}"


def _decided(head: Any, encoded: Seen) -> dict[str, Tensor]:
    """Return what a head for items decides of these pairs."""
    slots = getattr(head, "slots", 1)
    several = torch.tensor([(slot % len(encoded.vision.mask), 0) for slot in range(slots)])
    batch = _batch(_pairs(encoded) if slots == 1 else several, slots, len(encoded.text.mask))
    chosen = head.pairs(encoded, batch, {})
    joint = None
    if chosen is not None:
        sides = rows(chosen.vision, chosen.index[:, 0]), rows(chosen.text, chosen.index[:, 1])
        joint = encoded.encoder.fuse(*sides, chosen.outputs, chosen.slots)
    return {str(item): decision.float() for item, decision in enumerate(head.decide(encoded, joint, batch))}


def _pairs(encoded: Seen) -> Tensor:
    """Return int64 [P, 2]: each text with one of the pictures."""
    texts = torch.arange(len(encoded.text.mask))
    return torch.stack([texts % len(encoded.vision.mask), texts], dim=1)


def _batch(pairs: Tensor, slots: int, texts: int) -> Batch:
    """Return a batch of pairs int64 [P, 2] that are one item each, or together one item of so many images."""
    count = len(pairs)
    number = torch.arange(count)
    return Batch(
        images=None,
        texts=TextInput(torch.zeros(texts, 1, dtype=torch.int64), torch.ones(texts, 1, dtype=torch.bool)),
        pairs=pairs,
        slots=number if slots > 1 else torch.zeros(count, dtype=torch.int64),
        items=torch.zeros(count, dtype=torch.int64) if slots > 1 else number,
        seeds=number,
        caption_keys=number.unsqueeze(1),
        text_keys=number,
        image_keys=number,
        view_keys=number,
    )


def _streams(name: str, features: Features) -> dict[str, Tensor]:
    """Return the real tokens [B, N, D] of a stream, padding set to 0, and its pooled vector."""
    tokens = features.tokens.masked_fill(~features.mask.unsqueeze(-1), 0.0)
    return {f"{name}/tokens": tokens, **({} if features.pooled is None else {f"{name}/pooled": features.pooled})}


def _joint(joint: Joint) -> dict[str, Tensor]:
    found = {} if joint.pooled is None else {"joint/pooled": joint.pooled}
    for name, stream in (("vision", joint.vision), ("text", joint.text)):
        found |= {} if stream is None else _streams(f"joint/{name}", stream)
    return found


def _sampled(tensor: Tensor) -> Tensor:
    """Return at most so many values of a tensor, spread evenly over it; whole numbers are exact."""
    values = tensor.detach().reshape(-1)
    values = values.float() if values.is_floating_point() else values
    if len(values) <= SAMPLED:
        return values.clone()
    return values[torch.linspace(0, len(values) - 1, SAMPLED, dtype=torch.float64).round().long()]


# --- what is given --------------------------------------------------------------------------------------------------


def pictures() -> list[Tensor]:
    """Return the pictures, uint8 [3, H, W]."""
    return [_picture(*sides, seed=index) for index, sides in enumerate(SIDES)]


def _picture(height: int, width: int, *, seed: int) -> Tensor:
    """Return uint8 pixels [3, H, W] with edges, gradients and fine detail, each colour of its own."""
    y, x = torch.arange(height).view(-1, 1), torch.arange(width).view(1, -1)
    channels = []
    for colour in range(3):
        detail = (x * x * (3 + colour) + y * y * (5 + seed) + x * y * (7 - colour)) % 97
        blocks = ((x // 16 + y // 12 + colour + seed) % 3) * 50
        channels.append((detail + blocks + (y * (20 + 30 * colour)) // height) % 256)
    return torch.stack(channels).to(torch.uint8)


def _image(picture: Tensor) -> Image.Image:
    return Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())


def _picked(images: VisionInput, pictures: Sequence[Tensor]) -> VisionInput:
    """Return images whose pixels [B, 3, H, W] are picked from the pictures, where the processor only resized them."""
    if images.mask is not None or images.pixels.dtype != torch.uint8 or images.pixels.ndim != 4:
        return images
    height, width = images.pixels.shape[-2:]
    picked = []
    for picture in pictures:
        down = torch.arange(height) * picture.shape[1] // height
        along = torch.arange(width) * picture.shape[2] // width
        picked.append(picture[:, down][:, :, along])
    return replace(images, pixels=torch.stack(picked))
