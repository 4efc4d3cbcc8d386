"""Five labelled angiograms: model, control and pseudo-labels once more, with another seed."""

from dataclasses import replace

from studies import few_labels_080_finetuned
from studies.few_labels_080_finetuned import LONGER, LONGER_AGAIN, LONGER_PSEUDO

STUDY = replace(
    few_labels_080_finetuned.STUDY,
    question="Pseudo-labels of a finished model once more: does another seed say the same?",
    seeds=(1,),
    noise="few_labels_080_finetuned",
    arms={
        name: replace(few_labels_080_finetuned.STUDY.arms[name], seeds=None)
        for name in (LONGER, LONGER_AGAIN, LONGER_PSEUDO)
    },
)
