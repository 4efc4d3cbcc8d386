"""What a difference between two single trainings is worth: nnU-Net alone, only the seed differs."""

from driver.definition import Arm, Study

STUDY = Study(
    question="How far apart are trainings of nnU-Net that differ in their seed alone?",
    dataset="Dataset080_CoronaryXA",
    metrics=("Dice", "clDice"),
    mirroring=(False, True),
    arms={"nnUNetTrainer": Arm()},
)
