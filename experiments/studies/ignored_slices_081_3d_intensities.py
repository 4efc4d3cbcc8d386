"""The question of ignored_slices_081_3d, with the intensities of the annotated slices, by nnunet-skd fingerprint."""

from dataclasses import replace

from studies import ignored_slices_081_3d

STUDY = replace(
    ignored_slices_081_3d.STUDY,
    question="And where nnU-Net normalises by the intensities of the annotated slices?",
    arms={name: replace(arm, annotated_intensities=True) for name, arm in ignored_slices_081_3d.STUDY.arms.items()},
)
