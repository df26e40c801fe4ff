"""The published layouts in which a world can be written: one writer each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from renaissance.data.world.layouts.aro import write_aro
from renaissance.data.world.layouts.captions import write_coco, write_conceptual, write_flickr30k, write_sbu
from renaissance.data.world.layouts.gqa import write_gqa
from renaissance.data.world.layouts.image_classification import write_image_classification
from renaissance.data.world.layouts.nlvr2 import write_nlvr2
from renaissance.data.world.layouts.refcoco import write_refcoco, write_refcoco_plus, write_refcocog
from renaissance.data.world.layouts.site import Figures
from renaissance.data.world.layouts.snli_ve import write_snli_ve
from renaissance.data.world.layouts.sugarcrepe import write_sugarcrepe
from renaissance.data.world.layouts.visual_genome import write_visual_genome
from renaissance.data.world.layouts.vqav2 import write_vqav2
from renaissance.data.world.layouts.winoground import write_winoground
from renaissance.data.world.worlds import World

# write(root, world): writes the layout below root, in each language of the world; returns the figures of each folder
Write = Callable[[Path, World], Mapping[str, Figures]]

# those that take longest first, so that several processes end together
WRITERS: Mapping[str, Write] = {
    "coco-captions": write_coco,
    "flickr30k": write_flickr30k,
    "aro": write_aro,
    "vqav2": write_vqav2,
    "gqa": write_gqa,
    "nlvr2": write_nlvr2,
    "refcoco": write_refcoco,
    "refcoco+": write_refcoco_plus,
    "refcocog": write_refcocog,
    "snli-ve": write_snli_ve,
    "winoground": write_winoground,
    "sugarcrepe": write_sugarcrepe,
    "visual-genome": write_visual_genome,
    "conceptual-captions": write_conceptual,
    "sbu": write_sbu,
    "image-classification": write_image_classification,
}
