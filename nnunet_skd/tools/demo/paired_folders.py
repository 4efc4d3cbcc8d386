"""A folder of images and a folder of masks as a data set that the demo may train and test on.

Images are linked, not copied, so that large data takes no extra space. Masks are rewritten only where their values
have to change (0 and 255) or their file format differs from the images'.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES
from tqdm import tqdm

from nnunet_skd.messages import counted, listed
from nnunet_skd.tools.cases import reader_class
from nnunet_skd.tools.demo.data import hold_out, refuse_few
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.files import left_behind, link, new_folder, require_folder
from nnunet_skd.tools.images import read_images, read_segmentation, same_direction, written_whole

FOLDERS_DATASET = "Dataset900_Folders"
# Longest first, so that .nii.gz is not taken for something else.
READABLE = sorted({e for reader in LIST_OF_IO_CLASSES for e in reader.supported_file_endings}, key=len, reverse=True)
CHANNEL_NAMES = {1: ("image",), 3: ("R", "G", "B"), 4: ("R", "G", "B", "A")}


def pair_folders(images: str | Path, masks: str | Path, raw_folder: str | Path) -> Path:
    """Make a data set of a folder of images and a folder of masks, paired by name.

    ``lung_7.png`` or ``lung_7_0000.png`` goes with ``lung_7.png``, or with ``lung_7_mask.png``, ``_seg``, ``_label`` or
    ``_gt``. A fifth of the cases (at most 8) is held out for testing. Masks of 0 and 255 become 0 and 1.

    Args:
        images: folder of grey or RGB images, in one format that nnU-Net reads (not JPEG).
        masks: folder of masks of the same sizes, with values 0, 1, .. n or 0 and 255.
        raw_folder: where nnUNet_raw will point to.

    Returns:
        The data set's folder.

    Raises:
        BadInput: unpaired names, unreadable files, sizes or channels that differ, unusable values; with the names.
    """
    image_files, mask_files = _by_case(images, "image"), _by_case(masks, "mask")
    without_mask = [image_files[c].name for c in image_files if c not in mask_files]
    without_image = [mask_files[c].name for c in mask_files if c not in image_files]
    if without_mask or without_image:
        raise BadInput(
            "images and masks do not match by name."
            + (f"\nNo mask for: {listed(without_mask)}" if without_mask else "")
            + (f"\nNo image for: {listed(without_image)}" if without_image else "")
            + "\nGive both the same name (a.png and a.png, or a_mask.png), or move these files away."
        )
    image_reader, image_ending = _reader(image_files.values())
    mask_reader, mask_ending = _reader(mask_files.values())
    checked = _check_pairs(image_files, mask_files, image_reader, mask_reader)
    from_255 = checked.values == {0, 255}
    if from_255:
        print("The masks hold 0 and 255: 255 becomes label 1 (nnU-Net needs 0, 1, .. n). Your files stay as they are.")
    highest = 1 if from_255 else max(checked.values)
    names = ["object"] if highest == 1 else [f"label {i}" for i in range(1, highest + 1)]
    rewrite = from_255 or checked.coloured or mask_ending != image_ending

    train, test = hold_out({case: (image_files[case], mask_files[case]) for case in image_files})
    refuse_few(train, images)

    target_folder = Path(raw_folder) / FOLDERS_DATASET
    with new_folder(target_folder) as folder:
        for split, cases in (("Tr", train), ("Ts", test)):
            for case, (image, mask) in cases.items():
                link(image, folder / f"images{split}" / f"{case}_0000{image_ending}")
                target = folder / f"labels{split}" / f"{case}{image_ending}"
                if rewrite:
                    properties = read_images(image_reader, [image])[1]
                    segmentation = read_segmentation(mask_reader, mask)[0][0]
                    target.parent.mkdir(exist_ok=True)
                    with written_whole(target):
                        image_reader().write_seg(np.minimum(segmentation, highest), str(target), properties)
                else:
                    link(mask, target)
        channels = CHANNEL_NAMES.get(checked.channels) or [f"channel {i}" for i in range(checked.channels)]
        generate_dataset_json(
            str(folder),
            dict(enumerate(channels)),
            {"background": 0} | {name: i for i, name in enumerate(names, start=1)},
            len(train),
            image_ending,
            dataset_name=FOLDERS_DATASET,
            license="the user's own data",
            converted_by="nnunet_skd",
        )

    return target_folder


def _by_case(folder: str | Path, kind: str) -> dict[str, Path]:
    """The file of each case. Images may end in nnU-Net's _0000, masks in _mask, _seg, _label or _gt."""
    folder = require_folder(folder)
    suffix = r"_0000$" if kind == "image" else r"_(mask|seg|label|gt)$"
    cases, unreadable = defaultdict(list), []
    for file in sorted(f for f in folder.iterdir() if f.is_file() and not left_behind(f.name)):
        ending = _ending(file)
        if ending is None:
            unreadable.append(file.name)
        else:
            cases[re.sub(suffix, "", file.name[: -len(ending)])].append(file)
    if unreadable:
        raise BadInput(
            f"{folder} holds files that nnU-Net does not read: {listed(unreadable)}. It reads {', '.join(READABLE)}."
            " Convert them (JPEG to PNG, for instance) or move them away."
        )
    if not cases:
        raise BadInput(f"there are no {kind}s in {folder}. nnU-Net reads {', '.join(READABLE)}.")
    double = [", ".join(f.name for f in files) for files in cases.values() if len(files) > 1]
    if double:
        raise BadInput(f"{folder} holds more than one {kind} of a case: {listed(double)}. Keep one of each.")
    return {case: files[0] for case, files in cases.items()}


def _ending(file: Path) -> str | None:
    return next((ending for ending in READABLE if file.name.lower().endswith(ending)), None)


def _reader(files: Iterable[Path]) -> tuple[type[BaseReaderWriter], str]:
    """nnU-Net's reader for files of one format, and their ending as nnU-Net spells it."""
    endings = defaultdict(list)
    for file in files:
        endings[_ending(file)].append(file)
    if len(endings) > 1:
        found = ", ".join(f"{len(fs)} {ending} such as {fs[0].name}" for ending, fs in endings.items())
        raise BadInput(f"the files have several formats ({found}), but nnU-Net needs one. Convert them to one.")
    ending, (example, *_) = endings.popitem()
    return reader_class({"file_ending": ending}, example), ending


class Checked(NamedTuple):
    """What all images and masks have in common. ``coloured``: masks are stored as R, G, B."""

    channels: int
    values: set[int]
    coloured: bool


def _check_pairs(
    image_files: dict[str, Path],
    mask_files: dict[str, Path],
    image_reader: type[BaseReaderWriter],
    mask_reader: type[BaseReaderWriter],
) -> Checked:
    """Read every pair once, one at a time.

    Raises:
        BadInput: with everything that is wrong with them.
    """
    problems, by_channels, by_value, coloured = [], defaultdict(list), defaultdict(list), False
    for case in tqdm(image_files, desc="checking images and masks", unit="pair"):
        image_file, mask_file = image_files[case], mask_files[case]
        try:
            image, image_properties = read_images(image_reader, [image_file])
            mask, mask_properties = read_segmentation(mask_reader, mask_file)
        except BadInput as error:  # names the file with its folder: both may have one name
            problems.append(str(error))
            continue
        by_channels[len(image)].append(image_file.name)
        if image.shape[1:] != mask.shape[1:]:
            problems.append(f"mask {mask_file.name} is {_size(mask)}, but image {image_file.name} is {_size(image)}")
        elif not np.allclose(image_properties["spacing"], mask_properties["spacing"]):
            problems.append(f"mask {mask_file.name} and image {image_file.name} differ in voxel spacing")
        elif not same_direction(image_properties, mask_properties):
            problems.append(
                f"mask {mask_file.name} is stored in another orientation than image {image_file.name}: resample it"
            )
        if len(mask) > 1:
            coloured = True
            if np.any(mask[1:3] != mask[:1]):
                problems.append(f"mask {mask_file.name} is in colour, but one number per pixel is needed")
        for value in np.unique(mask[0]):
            by_value[float(value)].append(mask_file.name)
    if len(by_channels) > 1:
        most = max(by_channels, key=lambda n: len(by_channels[n]))
        others = [f"{name} ({n})" for n, files in by_channels.items() if n != most for name in files]
        problems.append(f"most images have {counted(most, 'channel')}, but these do not: {listed(others)}")
    values = set(by_value)
    if not problems and values != {0, 255} and (values | {0}) != set(range(len(values | {0}))):
        expected = range(len(values | {0}))
        odd = [f"{value:g} in {listed(files, 3)}" for value, files in sorted(by_value.items()) if value not in expected]
        problems.append(f"mask values must be 0, 1, .. n without a gap, or 0 and 255, but there is {listed(odd)}")
    if not problems and values <= {0}:
        problems.append("all masks are empty (only 0)")
    if problems:
        raise BadInput(
            "the images and masks cannot be used:\n" + listed(problems, between="\n") + "\nFix them, or move them away."
        )
    return Checked(next(iter(by_channels)), {int(value) for value in values}, coloured)


def _size(array: np.ndarray) -> str:
    return " x ".join(str(n) for n in array.shape[1:] if n > 1 or array.shape[1] > 1)
