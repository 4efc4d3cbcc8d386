"""Which dataset a dataset with pseudo-labels was made of."""

from nnunet_skd.compat import nnunet_folder
from nnunet_skd.tools.json_file import TEXT, read_json

RECORD = "pseudo_labels.json"


def source_of(dataset: str) -> str | None:
    """The dataset whose labelled cases are in this one, None for a dataset that was not made here.

    Raises:
        BadInput: its record is damaged.
    """
    raw = nnunet_folder("nnUNet_raw")
    if raw is None or not (raw / dataset / RECORD).is_file():
        return None
    remedy = "Make the dataset anew with nnunet-skd pseudo-labels"
    return read_json(raw / dataset / RECORD, {"dataset": TEXT}, remedy)["dataset"]
