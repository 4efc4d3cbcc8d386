"""The cases of a folder with images."""

from pathlib import Path

from nnunet_skd.messages import listed
from nnunet_skd.tools.cases import Cases, find_cases
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.images import require_whole
from nnunet_skd.tools.nnunet_json import channel_names


def case_images(images: Path, dataset_json: dict, reference: Path | None) -> Cases:
    """All cases of a folder, in the order of their names.

    Args:
        images: CASE_0000, CASE_0001, ..., or CASE_0000 alone where one file holds all channels, such as RGB.
        dataset_json: for the file ending and the number of channels.
        reference: folder that must hold the reference segmentation of each case, or None.

    Raises:
        BadInput: no case, one with other channels, one that was cut short, or one without reference.
    """
    ending = dataset_json["file_ending"]
    found, problems = find_cases(images, ending)
    for what, names in problems.items():
        print(f"{images}: {what}: {listed(names)}")
    cases = dict(sorted(found.items()))
    if not cases:
        raise BadInput(f"{images} holds no image named CASE_0000{ending}, as nnU-Net names them")
    channels = 1 if all(len(files) == 1 for files in cases.values()) else len(channel_names(dataset_json))
    for case, files in cases.items():
        found, expected = [file.name for file in files], [f"{case}_{i:04}{ending}" for i in range(channels)]
        if found != expected:
            raise BadInput(f"{images} holds {listed(found)}, but the models need {listed(expected)}")
        for file in files:
            require_whole(file)  # before all others are predicted for nothing
    missing = [case for case in cases if reference and not (reference / f"{case}{ending}").is_file()]
    if missing:
        raise BadInput(
            f"{reference} has no reference for {listed(missing)}. Move these images elsewhere, or leave out --ref"
        )
    return cases
