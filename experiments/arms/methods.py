"""The published methods, every voxel labelled."""

from driver.definition import Arm, Model

ACW, TWICE = "nnUNetTrainerACWSKD", "nnUNetTrainer, twice the steps"
OURS = ("nnUNetTrainerDSKD", ACW, "nnUNetTrainerDSKD_ACW")


def arms() -> dict[str, Arm]:
    """From scratch."""
    return {
        "nnUNetTrainer": Arm(),
        TWICE: Arm(steps=2),
        **{trainer: Arm(trainer) for trainer in OURS},
        f"{ACW}_noCW": Arm(f"{ACW}_noCW", against=("nnUNetTrainer", ACW)),
    }


def from_one_start_without_mirroring() -> dict[str, Arm]:
    """From one model of nnU-Net that knows the classes: which of them a short training finds is luck.

    All seeds share it, so the noise floor is that of the second training alone.
    """
    plain, start = "nnUNetTrainerNoMirroring", Model("start", seed=0)

    return {
        "nnUNetTrainer": Arm(plain, start=start),
        TWICE: Arm(plain, start=start, steps=2),
        **{trainer: Arm(f"no_mirroring:{trainer}_NoMirroring", start=start) for trainer in OURS},
        start.arm: Arm(plain, steps=4, seeds=(0,), against=()),
    }
