"""Three annotated axial slices in each of 40 head-and-neck CTs; all other voxels are ignored."""

from arms.few_labels import arms_with_slices
from driver.definition import Study

STUDY = Study(
    question="What are the slices worth that nobody annotated, beside three annotated ones per CT?",
    dataset="Dataset081_HeadNeckCT",
    configuration="3d_fullres",
    annotated_slices=3,
    seeds=(0, 1),
    metrics=("Dice", "HD95"),
    mirroring=(False, True),
    steps=2000,
    arms=arms_with_slices(),
)
