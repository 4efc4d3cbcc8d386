"""Ten labelled angiograms: model, control and pseudo-labels once more, with another seed."""

from dataclasses import replace

from studies import few_labels_080_ten

STUDY = replace(
    few_labels_080_ten.STUDY,
    question="And of ten labelled angiograms: does another seed say the same?",
    seeds=(1,),
    arms={
        name: few_labels_080_ten.STUDY.arms[name]
        for name in ("labelled only", "the same images again", "its pseudo-labels")
    },
)
