"""The same in early training, one draw: too short a schedule, as twice the steps shows."""

from dataclasses import replace

from studies import few_labels_080

STUDY = replace(
    few_labels_080.STUDY,
    question="What are 35 unlabelled angiograms worth beside 5 labelled ones, in early training?",
    draws=(0,),
    seeds=(0,),
    steps=1000,
)
