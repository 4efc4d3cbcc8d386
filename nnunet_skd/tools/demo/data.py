"""The user's data as a data set that the demo may train and test on, without touching or copying the user's images.

Images are linked, not copied, so that hospital-size data costs no disk; masks are rewritten only where their values
have to change (0 and 255) or their file format differs from the images'.
"""

import json
import re
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json
from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES, determine_reader_writer_from_file_ending
from nnunetv2.utilities.utils import (
    get_filenames_of_train_images_and_targets,
    get_identifiers_from_splitted_dataset_folder,
)
from tqdm import tqdm

from nnunet_skd.tools.errors import BadInput

FOLDERS_DATASET = "Dataset900_Folders"
FEWEST_TRAINING_CASES = 5  # nnU-Net splits them into five folds
MOST_HELD_OUT = 8
# Longest first, so that .nii.gz is not taken for something else.
READABLE = sorted({e for reader in LIST_OF_IO_CLASSES for e in reader.supported_file_endings}, key=len, reverse=True)
CHANNEL_NAMES = {1: ("image",), 3: ("R", "G", "B"), 4: ("R", "G", "B", "A")}


def link_dataset(data, raw_folder) -> Path:
    """Link a data set in nnU-Net's raw format into another raw folder; test cases are those that have labels.

    Where imagesTs and labelsTs give no test case, a fifth of the training cases (at most 8) is held out instead, evenly
    spread over the sorted names.

    Args:
        data: DatasetXXX_Name with dataset.json, imagesTr, labelsTr and perhaps imagesTs, labelsTs.
        raw_folder: where nnUNet_raw will point to.

    Returns:
        The new data set's folder; it has the same name.

    Raises:
        BadInput: not such a folder, files missing, or fewer than five training cases left.
    """
    data = Path(data).absolute()
    if not re.fullmatch(r"Dataset\d{3}_.+", data.name):
        raise BadInput(
            f"{data} is not named like DatasetXXX_Name (three digits). Rename it, or use --images and --masks."
        )
    if not (data / "dataset.json").is_file():
        raise BadInput(
            f"{data} has no dataset.json. Write one (nnU-Net's dataset_format.md), or use --images and --masks."
        )
    dataset_json = json.loads((data / "dataset.json").read_text(encoding="utf-8"))
    missing = [key for key in ("channel_names", "labels", "file_ending") if key not in dataset_json]
    if missing:
        raise BadInput(
            f"{data / 'dataset.json'} lacks {', '.join(missing)}. Add it as nnU-Net's dataset_format.md says."
        )
    ending = dataset_json["file_ending"]
    for folder in () if "dataset" in dataset_json else ("imagesTr", "labelsTr"):
        if not (data / folder).is_dir():
            raise BadInput(f"{data} has no folder {folder}. Training needs it.")

    if "dataset" in dataset_json:
        found = get_filenames_of_train_images_and_targets(str(data), dataset_json)
        train = {case: ([Path(f) for f in files["images"]], Path(files["label"])) for case, files in found.items()}
    else:
        train = _cases(data / "imagesTr", data / "labelsTr", ending)
    _refuse_missing(train)
    test = _labelled_test_cases(data, ending)
    if not test:
        train, test = hold_out(train)
    _refuse_few(train, data)

    def fill(folder):
        for split, cases in (("Tr", train), ("Ts", test)):
            for case, (images, label) in cases.items():
                for channel, image in enumerate(images):
                    _link(image, folder / f"images{split}" / f"{case}_{channel:04d}{ending}")
                _link(label, folder / f"labels{split}" / f"{case}{ending}")
                for original, kind in ((images[0].parent, "images"), (label.parent, "labels")):
                    if (original / f"{case}.json").is_file():  # the spacing of 3D TIFF
                        _link(original / f"{case}.json", folder / f"{kind}{split}" / f"{case}.json")
        content = {key: value for key, value in dataset_json.items() if key != "dataset"} | {"numTraining": len(train)}
        (folder / "dataset.json").write_text(json.dumps(content, indent=4), encoding="utf-8")

    return _write_folder(Path(raw_folder) / data.name, fill)


def pair_folders(images, masks, raw_folder) -> Path:
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
        BadInput: unpaired names, unreadable files, other sizes, mixed channels, unusable values; offenders are listed.
    """
    image_files, mask_files = _by_case(Path(images), "image"), _by_case(Path(masks), "mask")
    without_mask = [image_files[c].name for c in image_files if c not in mask_files]
    without_image = [mask_files[c].name for c in mask_files if c not in image_files]
    if without_mask or without_image:
        raise BadInput(
            "images and masks do not pair by name."
            + (f"\nNo mask for: {_some(without_mask)}" if without_mask else "")
            + (f"\nNo image for: {_some(without_image)}" if without_image else "")
            + "\nName both alike (a.png and a.png, or a_mask.png), or move these files away."
        )
    image_reader, image_ending = _reader(image_files.values())
    mask_reader, mask_ending = _reader(mask_files.values())
    checked = _check_pairs(image_files, mask_files, image_reader, mask_reader)
    from_255 = checked["values"] == {0, 255}
    if from_255:
        print("Masks hold 0 and 255: 255 becomes label 1 (nnU-Net wants 0, 1, .. n). Your files stay as they are.")
    highest = 1 if from_255 else max(checked["values"])
    names = ["object"] if highest == 1 else [f"label {i}" for i in range(1, highest + 1)]
    rewrite = from_255 or checked["coloured"] or mask_ending != image_ending

    train, test = hold_out({case: (image_files[case], mask_files[case]) for case in image_files})
    _refuse_few(train, images)

    def fill(folder):
        for split, cases in (("Tr", train), ("Ts", test)):
            for case, (image, mask) in cases.items():
                _link(image, folder / f"images{split}" / f"{case}_0000{image_ending}")
                target = folder / f"labels{split}" / f"{case}{image_ending}"
                if rewrite:
                    properties = image_reader.read_images((str(image),))[1]
                    segmentation = mask_reader.read_seg(str(mask))[0][0]
                    target.parent.mkdir(exist_ok=True)
                    image_reader.write_seg(np.minimum(segmentation, highest), str(target), properties)
                else:
                    _link(mask, target)
        channels = CHANNEL_NAMES.get(checked["channels"]) or [f"channel {i}" for i in range(checked["channels"])]
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

    return _write_folder(Path(raw_folder) / FOLDERS_DATASET, fill)


def hold_out(cases: dict) -> tuple[dict, dict]:
    """Set every fifth case aside for testing, at most 8, evenly spread over the sorted names: (train, test)."""
    names = sorted(cases)
    number = max(1, min(MOST_HELD_OUT, len(names) // 5))
    held_out = {names[i] for i in np.linspace(0, len(names) - 1, number + 2).astype(int)[1:-1]}
    print(f"No labelled test cases: {len(held_out)} of {len(names)} training cases are held out as such.")
    print(f"Held out: {', '.join(sorted(held_out))}")
    return {n: cases[n] for n in names if n not in held_out}, {n: cases[n] for n in names if n in held_out}


def _labelled_test_cases(data, ending):
    images, labels = data / "imagesTs", data / "labelsTs"
    if not (images.is_dir() and labels.is_dir()):
        return {}
    return {case: files for case, files in _cases(images, labels, ending).items() if files[1].is_file()}


def _cases(images, labels, ending):
    # nnU-Net's own function for this starts a dozen processes.
    names = get_identifiers_from_splitted_dataset_folder(str(images), ending)
    return {str(c): (channels_of(images, str(c), ending), labels / f"{c}{ending}") for c in names}


def channels_of(folder: Path, case: str, ending: str) -> list[Path]:
    """The image files of a case, one per channel, in order."""
    name = re.compile(re.escape(case) + r"_\d{4}" + re.escape(ending))
    return sorted(f for f in folder.iterdir() if name.fullmatch(f.name))


def _refuse_missing(cases):
    absent = [str(f) for images, label in cases.values() for f in (*images, label) if not f.is_file()]
    if absent:
        raise BadInput(f"files of the data set are missing: {_some(absent)}. Put them back, or remove their cases.")


def _refuse_few(train, source):
    if len(train) < FEWEST_TRAINING_CASES:
        raise BadInput(
            f"{source} leaves {len(train)} training cases, but nnU-Net splits them into five folds and needs at least"
            f" {FEWEST_TRAINING_CASES}. Add cases (where none has a test label, one more is held out for testing)."
        )


def _by_case(folder, kind):
    """File of each case. Images may end in nnU-Net's _0000, masks in _mask, _seg, _label or _gt."""
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder. Give the folder that holds the {kind}s.")
    suffix = r"_0000$" if kind == "image" else r"_(mask|seg|label|gt)$"
    cases, unreadable = defaultdict(list), []
    for file in sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith(".")):
        ending = _ending(file)
        if ending is None:
            unreadable.append(file.name)
        else:
            cases[re.sub(suffix, "", file.name[: -len(ending)])].append(file)
    if unreadable:
        raise BadInput(
            f"{folder} holds files that nnU-Net does not read: {_some(unreadable)}. It reads {', '.join(READABLE)};"
            " convert them (JPEG to PNG, for instance) or move them away."
        )
    if not cases:
        raise BadInput(f"{folder} holds no {kind}s. nnU-Net reads {', '.join(READABLE)}.")
    double = [", ".join(f.name for f in files) for files in cases.values() if len(files) > 1]
    if double:
        raise BadInput(f"{folder} holds more than one {kind} of a case: {_some(double)}. Keep one of each.")
    return {case: files[0] for case, files in cases.items()}


def _ending(file):
    return next((ending for ending in READABLE if file.name.lower().endswith(ending)), None)


def _reader(files):
    """nnU-Net's reader for files of one format, and their ending as nnU-Net spells it."""
    endings = defaultdict(list)
    for file in files:
        endings[_ending(file)].append(file)
    if len(endings) > 1:
        found = ", ".join(f"{len(fs)} {ending} such as {fs[0].name}" for ending, fs in endings.items())
        raise BadInput(f"the files mix formats ({found}), but nnU-Net wants one. Convert them to one.")
    ending, (example, *_) = endings.popitem()
    try:
        reader = determine_reader_writer_from_file_ending(ending, str(example), verbose=False)
    except RuntimeError as error:
        raise BadInput(f"nnU-Net cannot read {example}: {error}") from error
    return reader(), ending


def _check_pairs(image_files, mask_files, image_reader, mask_reader):
    """Read every pair once, one at a time; the channels of the images, the values of the masks, and what is wrong."""
    problems, by_channels, by_value, coloured = [], defaultdict(list), defaultdict(list), False
    for case in tqdm(image_files, desc="checking images and masks", unit="pair"):
        image_file, mask_file = image_files[case], mask_files[case]
        try:
            image, image_properties = image_reader.read_images((str(image_file),))
            mask, mask_properties = mask_reader.read_seg(str(mask_file))
        except Exception as error:  # whatever the format's library raises
            problems.append(f"{image_file.name} or {mask_file.name} cannot be read ({error})")
            continue
        by_channels[len(image)].append(image_file.name)
        if image.shape[1:] != mask.shape[1:]:
            problems.append(f"{mask_file.name} is {_size(mask)}, but {image_file.name} is {_size(image)}")
        elif not np.allclose(image_properties["spacing"], mask_properties["spacing"]):
            problems.append(f"{mask_file.name} and {image_file.name} differ in voxel spacing")
        if len(mask) > 1:
            coloured = True
            if np.any(mask[1:3] != mask[:1]):
                problems.append(f"{mask_file.name} is in colour; one number per pixel is needed")
        for value in np.unique(mask[0]):
            by_value[float(value)].append(mask_file.name)
    if len(by_channels) > 1:
        most = max(by_channels, key=lambda n: len(by_channels[n]))
        others = [f"{name} ({n})" for n, files in by_channels.items() if n != most for name in files]
        problems.append(f"most images have {most} channel(s), but not {_some(others)}")
    values = set(by_value)
    if not problems and values != {0, 255} and (values | {0}) != set(range(len(values | {0}))):
        expected = range(len(values | {0}))
        odd = [f"{value:g} in {_some(files, 3)}" for value, files in sorted(by_value.items()) if value not in expected]
        problems.append(f"mask values must be 0, 1, .. n without a gap, or 0 and 255; not {_some(odd)}")
    if not problems and values <= {0}:
        problems.append("all masks are empty (only 0)")
    if problems:
        raise BadInput(
            "the images and masks cannot be used:\n" + _some(problems, between="\n") + "\nMend or move them."
        )
    return {"channels": next(iter(by_channels)), "values": {int(v) for v in values}, "coloured": coloured}


def _size(array):
    return " x ".join(str(n) for n in array.shape[1:] if n > 1 or array.shape[1] > 1)


def _some(items, most=10, between=", "):
    items = list(items)
    return between.join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _link(source, target):
    target.parent.mkdir(exist_ok=True)
    try:
        target.symlink_to(Path(source).resolve())
    except OSError:  # Windows without the right to link
        shutil.copy2(source, target)


def _write_folder(target, fill):
    """Fill a folder under a temporary name and move it into place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished_", dir=target.parent))
    try:
        fill(unfinished)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target
