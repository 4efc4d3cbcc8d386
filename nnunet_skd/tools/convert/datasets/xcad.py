"""XCAD: the labelled part, 126 X-ray coronary angiograms with vessel masks.

  nnunet-skd convert xcad XCAD.zip -d 83

Expected: test/images/NAME.png with test/masks/NAME.png. The train folder is for unsupervised methods: it has no
reference segmentations and is left out.
Labels: background 0, vessel 1. One grey channel.
Split: the publishers name none for the labelled images, so none is written; nnU-Net makes its five folds.
The publishers' own evaluation takes each mask value above 0 as vessel, which is --threshold 1.
Reference: Ma et al., Self-supervised vessel segmentation via adversarial learning, ICCV 2021; github AISIGSJTU/SSVS.
Licence: the publishers' repository does not name one.
"""

from functools import partial

from nnunet_skd.tools.convert.common import Case, Files, Found, index, paired, require_any
from nnunet_skd.tools.convert.vessels import add_threshold, write_vessels

NAME = "XCAD"
PUBLISHED = 126
add_arguments = add_threshold


def find(files: Files, threshold: int | None = None) -> Found:
    """Pair the images and masks of the ``test`` folder by their names."""
    problems = []
    images = index(files, r"test/images/([^/]+)\.png", problems)
    masks = index(files, r"test/masks/([^/]+)\.png", problems)
    keys = paired(images, masks, problems)
    require_any(keys, files, "test/images/NAME.png with test/masks/NAME.png")
    if len(set(images) | set(masks)) != PUBLISHED:
        problems.append(f"test: {len(set(images) | set(masks))} images, {PUBLISHED} were published")
    cases = [Case(f"xcad_{key}", "train", partial(write_vessels, images[key], masks[key], threshold)) for key in keys]
    return Found(
        cases=cases,
        labels={"background": 0, "vessel": 1},
        channel_names={"0": "angiogram"},
        file_ending=".png",
        configuration="2d",
        reference="Ma et al., Self-supervised vessel segmentation via adversarial learning, ICCV 2021, "
        "https://github.com/AISIGSJTU/SSVS",
        licence="not named by the publishers",
        description="XCAD, labelled part: X-ray coronary angiograms and vessel masks",
        problems=problems,
        resolved="mask pixels were neither black nor white and went by --threshold",
    )
