"""Three annotated axial slices per volume: by whose intensities is a CT normalised? From scratch, over seeds.

The trainings of seed 0 were done before this study was written, and are why it was.
"""

from dataclasses import replace

from driver.definition import Arm
from studies import ignored_slices_081_3d

PLAIN = ignored_slices_081_3d.PLAIN

STUDY = replace(
    ignored_slices_081_3d.STUDY,
    question="nnU-Net counts ignored voxels among a CT's intensities: what if it counts the annotated ones alone?",
    arms={
        "nnUNetv2_extract_fingerprint": Arm(PLAIN),
        "nnunet-skd fingerprint": Arm(PLAIN, annotated_intensities=True),
    },
)
