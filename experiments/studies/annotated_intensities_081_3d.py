"""Three annotated axial slices per volume: by whose intensities is a CT normalised? From scratch, over seeds.

The trainings of seed 0 were done before this study was written, and are why it was.
"""

from driver.definition import Arm, Study

PLAIN = "nnUNetTrainerNoMirroring"

STUDY = Study(
    question="nnU-Net counts ignored voxels among a CT's intensities: what if it counts the annotated ones alone?",
    dataset="Dataset081_HeadNeckCT",
    configuration="3d_fullres",
    annotated_slices=3,
    metrics=("Dice", "HD95"),
    steps=8000,
    arms={
        "nnUNetv2_extract_fingerprint": Arm(PLAIN),
        "nnunet-skd fingerprint": Arm(PLAIN, annotated_intensities=True),
    },
)
