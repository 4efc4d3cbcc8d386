"""What the trainers ship with: a changed default is a decision, which belongs in docs/method.md and the changelog."""

import pytest

from nnunet_skd.catalogue import trainer_classes

DDL = "DeepDistribution(weight=1, patches_per_axis=4, temperature=3.0, form=log, direction=student_teacher)"
PSDL = "Pixelwise(weight=1, alpha=0.5, rising={})"
UNLABELLED = "Unlabelled(weight={}, start={}, rise={}, target=soft, threshold=0)"
ACW = (
    "AdversarialClassWise( teacher=1, token=0.5, adversarial=0.1, class_wise=0.01, class_wise_feature=0.01, "
    "reconstruction=0.1, feature_reconstruction=True, tau_min=1.0, tau_range=4.0, adversarial=True (temperature): "
    "AdversarialTemperature(tau_min=1.0, tau_range=4.0, adversarial=True) )"
)
AVERAGE, FINISHED = "MovingAverage(decay=0.99, mirror=True)", "FinishedModels(mirror=True)"


@pytest.mark.parametrize(
    ("trainer", "terms", "teacher", "unlabelled_per_labelled"),
    [
        ("nnUNetTrainerDSKD", [DDL, PSDL.format(True)], "PreviousEpoch(mirror=False)", 0),
        ("nnUNetTrainerACWSKD", [ACW], "None", 0),
        ("nnUNetTrainerDSKD_ACW", [DDL, PSDL.format(True), ACW], "PreviousEpoch(mirror=False)", 0),
        ("nnUNetTrainerDSKD_unlabelled", [UNLABELLED.format(0.5, 0.25, 0.2)], AVERAGE, 1),
        ("nnUNetTrainerDistill", [DDL, PSDL.format(False), UNLABELLED.format(1, 0, 0.05)], FINISHED, 1),
    ],
)
def test_terms_and_teacher(trainer, terms, teacher, unlabelled_per_labelled):
    shipped = trainer_classes()[trainer]
    assert [" ".join(repr(term).split()) for term in shipped.terms] == terms
    assert (repr(shipped.teacher), shipped.unlabelled_per_labelled) == (teacher, unlabelled_per_labelled)
