"""The published methods, every voxel labelled."""

from driver.definition import Arm


def arms() -> dict[str, Arm]:
    return {
        "nnUNetTrainer": Arm(),
        "nnUNetTrainer, twice the steps": Arm(steps=2),
        "nnUNetTrainerDSKD": Arm("nnUNetTrainerDSKD"),
        "nnUNetTrainerACWSKD": Arm("nnUNetTrainerACWSKD"),
        "nnUNetTrainerDSKD_ACW": Arm("nnUNetTrainerDSKD_ACW"),
    }
