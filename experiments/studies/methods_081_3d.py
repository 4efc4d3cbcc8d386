"""The published methods, every voxel labelled, on head-and-neck CT in 3D."""

from dataclasses import replace

from studies import methods_081_2d

STUDY = replace(
    methods_081_2d.STUDY,
    question="Does self-distillation help a network that knows the organs, in 3D?",
    configuration="3d_fullres",
)
