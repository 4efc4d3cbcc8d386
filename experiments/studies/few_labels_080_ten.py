"""Ten labelled angiograms, and 30 that nobody labelled."""

from dataclasses import replace

from studies import few_labels_080

STUDY = replace(
    few_labels_080.STUDY,
    question="What are 30 unlabelled angiograms worth beside 10 labelled ones?",
    labelled=10,
)
