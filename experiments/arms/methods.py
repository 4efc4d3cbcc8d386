"""The published methods, every voxel labelled."""

from driver.definition import Arm, Model

ACW = "nnUNetTrainerACWSKD"
OURS = ("nnUNetTrainerDSKD", ACW, "nnUNetTrainerDSKD_ACW")


def arms() -> dict[str, Arm]:
    """From scratch."""
    return {
        "nnUNetTrainer": Arm(),
        "nnUNetTrainer, twice the steps": Arm(steps=2),
        **{trainer: Arm(trainer) for trainer in OURS},
        f"{ACW}_noCW": Arm(f"{ACW}_noCW", against=("nnUNetTrainer", ACW)),
    }


def from_one_start_without_mirroring() -> dict[str, Arm]:
    """From one model of nnU-Net that knows the classes: which of them a short training finds is luck.

    All seeds share it, so the noise floor is that of the second training alone.
    """
    plain, start, twice = "nnUNetTrainerNoMirroring", Model("start", seed=0), "nnUNetTrainer, twice the steps"
    return {
        "nnUNetTrainer": Arm(plain, start=start),
        twice: Arm(plain, start=start, steps=2),
        **{trainer: Arm(f"no_mirroring:{trainer}_NoMirroring", start=start) for trainer in OURS},
        f"{ACW}, twice the steps": Arm(f"no_mirroring:{ACW}_NoMirroring", start=start, steps=2, against=(twice,)),
        start.arm: Arm(plain, steps=4, seeds=(0,), against=()),
    }
