"""What the new dataset takes over from the one with the labels: files, split and fingerprint."""

from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id

from nnunet_skd.messages import listed
from nnunet_skd.tools.errors import BadInput, as_bad_input
from nnunet_skd.tools.files import file_hash
from nnunet_skd.tools.nnunet_folders import FINGERPRINT, SPLITS, require_variable
from nnunet_skd.tools.teaching import NUM_FOLDS, read_splits
from nnunet_skd.tools.unlabelled.dataset import Dataset, labelled_files, preprocess_command
from nnunet_skd.unlabelled_data import labelled_cases, labelled_folder


class LabelledCases:
    """Images and label of each case, and the split of one fold, or all."""

    def __init__(self, dataset: Dataset, configuration: str, fold: str):
        """
        Raises:
            BadInput: images, labels, the fingerprint or the split are missing.
        """
        name = dataset.plans.dataset_name
        raw, preprocessed = map(require_variable, ("nnUNet_raw", "nnUNet_preprocessed"))
        self.files = labelled_files(dataset)
        folder = labelled_folder(dataset.plans, configuration)
        with as_bad_input():
            missing = sorted(labelled_cases(folder) - self.files.keys())
        if missing:
            raise BadInput(
                f"{raw / name} lacks the images of {listed(missing)}, which are labelled in {folder}. Put them back, "
                f"or preprocess again without them: {preprocess_command(dataset.plans, configuration)}"
            )
        if not self.files:
            raise BadInput(f"{raw / name} has no images with labels. Put them back")
        if missing := [str(label) for _, label in self.files.values() if not label.is_file()]:
            raise BadInput(f"labels are missing: {listed(missing)}. Put them back")
        files = [file for images, label in self.files.values() for file in (*images, label)]
        if others := [str(file) for file in files if not file.name.endswith(dataset.file_ending)]:
            raise BadInput(
                f"{listed(others)} do not end in {dataset.file_ending}, dataset.json's file_ending. Convert them"
            )
        if not (preprocessed / name / FINGERPRINT).is_file():
            with_ignored = "ignore" in dataset.description["labels"]
            make = "nnunet-skd fingerprint" if with_ignored else "nnUNetv2_extract_fingerprint"
            number = convert_dataset_name_to_id(name)
            raise BadInput(f"{preprocessed / name / FINGERPRINT} is missing. Make it: {make} -d {number}")
        self.fingerprint = (preprocessed / name / FINGERPRINT).read_bytes()
        if fold == "all":
            self.fold, self.train, self.validation = 0, sorted(self.files), []
        else:
            remedy = "nnUNetv2_train made it where the model was trained: copy it from there"
            file = preprocessed / name / SPLITS
            split = read_splits(file, remedy)[int(fold)]
            if gone := sorted({*split["train"], *split["val"]} - self.files.keys()):
                raise BadInput(
                    f"{raw / name} lacks the images of {listed(gone)}, which {file} names in fold {fold}. Put them "
                    "back, or take them out of the split"
                )
            self.fold, self.train, self.validation = int(fold), split["train"], split["val"]

    def hashes(self) -> dict[str, str]:
        """Of each case's label."""
        return {case: file_hash(label) for case, (_, label) in self.files.items()}

    def splits(self, added: list[str]) -> list[dict[str, list[str]]]:
        """Each fold of the new dataset is the one that was asked for: nobody trains another one by mistake.

        Of fold all nothing is left to validate on, and so nnU-Net trains no numbered fold.
        """
        return [{"train": sorted([*self.train, *added]), "val": self.validation}] * max(NUM_FOLDS, self.fold + 1)
