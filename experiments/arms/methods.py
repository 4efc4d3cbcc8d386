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


def from_one_start_without_mirroring(*, keeps_last_layer: bool) -> dict[str, Arm]:
    """From one model of nnU-Net that knows the classes: which of them a short training finds is luck.

    All seeds share it, so the noise floor is that of the second training alone.
    """
    plain, start = "nnUNetTrainerNoMirroring", Model("start", seed=0)

    def second(trainer: str, steps: float = 1) -> Arm:
        return Arm(trainer, start=start, keeps_last_layer=keeps_last_layer, steps=steps)

    return {
        "nnUNetTrainer": second(plain),
        TWICE: second(plain, steps=2),
        **{trainer: second(f"no_mirroring:{trainer}_NoMirroring") for trainer in OURS},
        start.arm: Arm(plain, steps=4, seeds=(0,), against=()),
    }
