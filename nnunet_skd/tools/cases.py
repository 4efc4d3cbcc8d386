"""A data set as nnU-Net keeps it: its dataset.json, and how the files of a case are found and read."""

import copy
import io
import re
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.files import left_behind, link, require_folder

Cases = dict[str, list[Path]]  # case -> its image files, one for each channel
ImagesAndLabels = dict[str, tuple[list[Path], Path]]  # case -> its image files, one for each channel, and its label
Problems = dict[str, list[str]]  # what is wrong and the way out -> the files or cases concerned


def reader_class(dataset_json: dict, example: str | Path) -> type[BaseReaderWriter]:
    """nnU-Net's reader for the files of a data set, one of which is ``example``.

    Raises:
        BadInput: none of nnU-Net's readers can read the example.
    """
    try:
        with redirect_stderr(io.StringIO()):  # nnU-Net prints a traceback for every reader that fails
            return determine_reader_writer_from_dataset_json(dataset_json, str(example), verbose=False)
    except Exception as error:  # none fits, or the example is damaged in a way that a reader did not expect
        raise BadInput(f"none of nnU-Net's readers can read {example}: {error}") from error


def segmented_cases(folder: Path, file_ending: str) -> set[str]:
    """The cases of a folder with segmentations, CASE.png. What systems leave behind, such as ._CASE.png, is none."""
    files = (file for file in folder.iterdir() if file.name.endswith(file_ending) and file.is_file())
    return {file.name.removesuffix(file_ending) for file in files if not left_behind(file.name)}


def require_segmented_cases(folder: Path, file_ending: str) -> set[str]:
    """The cases of a folder with segmentations.

    Raises:
        BadInput: there are none, or no folder; or .PNG where .png is expected.
    """
    for file in sorted(require_folder(folder).iterdir()):
        same = file.name.lower().endswith(file_ending.lower()) and file.is_file() and not left_behind(file.name)
        if same and not file.name.endswith(file_ending):
            raise BadInput(f"{file} has to end with {file_ending}, as dataset.json says, to the letter. Rename it")
    cases = segmented_cases(folder, file_ending)
    if not cases:
        raise BadInput(f"no file in {folder} ends with {file_ending}, which is the file ending in dataset.json")
    return cases


def training_cases(raw: Path, dataset_json: dict) -> ImagesAndLabels:
    """The training cases of a raw dataset: those that its dataset.json lists, else those of its folders."""
    if "dataset" not in dataset_json:  # nnU-Net's own listing takes ._CASE for a case, and starts twelve processes
        return cases_of_folders(raw / "imagesTr", raw / "labelsTr", dataset_json["file_ending"])
    # a copy, because nnU-Net completes the paths in it
    found = get_filenames_of_train_images_and_targets(str(raw), copy.deepcopy(dataset_json))
    return {case: ([Path(file) for file in files["images"]], Path(files["label"])) for case, files in found.items()}


def cases_of_folders(images: Path, labels: Path, file_ending: str) -> ImagesAndLabels:
    """The cases of two folders; a label may be missing. No cases where there is no folder of images."""
    found = find_cases(images, file_ending)[0] if images.is_dir() else {}
    return {case: (files, labels / f"{case}{file_ending}") for case, files in found.items()}


def channel_files(folder: Path, case: str, file_ending: str) -> list[Path]:
    """The image files of a case, CASE_0000, CASE_0001, ..., in the order of the channels."""
    name = re.compile(re.escape(case) + r"_\d{4}" + re.escape(file_ending))
    return sorted(file for file in folder.iterdir() if name.fullmatch(file.name))


def link_images(case: str, images: list[Path], folder: Path, file_ending: str) -> None:
    """Link a case's images into a folder, under the names that nnU-Net gives them."""
    for channel, image in enumerate(images):
        link(image, folder / f"{case}_{channel:04d}{file_ending}")
    _bring_spacing(link, images[0], f"_0000{file_ending}", folder / f"{case}.json")


def bring_label(
    case: str, label: Path, folder: Path, file_ending: str, bring: Callable[[Path, Path], None] = link
) -> None:
    """Link a case's label into a folder, or copy it, under the name that nnU-Net gives it."""
    bring(label, folder / f"{case}{file_ending}")
    _bring_spacing(bring, label, file_ending, folder / f"{case}.json")


def _bring_spacing(bring: Callable[[Path, Path], None], file: Path, tail: str, target: Path) -> None:
    if (spacing := spacing_file(file, tail)).is_file():
        bring(spacing, target)


def spacing_file(file: Path, tail: str) -> Path:
    """The JSON file beside a 3D TIFF that holds its spacing. nnU-Net finds it by the TIFF's name without this tail."""
    return file.with_name(f"{file.name[: -len(tail)]}.json")


def find_cases(folder: Path, file_ending: str) -> tuple[Cases, Problems]:
    """Group a folder's files into cases by their names: CASE_0000.png, CASE_0001.png, ... Folders in it are not read.

    Returns:
        The images of each case in the order of its channels, and what is wrong with other files. Hidden files and
        what operating systems leave behind are neither.
    """
    channels: dict[str, dict[int, Path]] = {}
    problems: Problems = {}
    others = []
    for path in sorted(folder.iterdir()):
        if not path.is_file() or left_behind(path.name):
            continue
        if not path.name.endswith(file_ending):
            others.append(path)
        elif match := re.fullmatch(r"(.+)_(\d{4})", path.name.removesuffix(file_ending)):
            channels.setdefault(match[1], {})[int(match[2])] = path
        else:
            what = f"no channel number in the name (rename CASE{file_ending} to CASE_0000{file_ending})"
            problems.setdefault(what, []).append(path.name)
    what = f"files that do not end in {file_ending}, the dataset's file ending (convert them or take them out)"
    for path in others:
        if path.suffix != ".json" or path.stem not in channels:  # CASE.json holds the spacing of 3D TIFF
            problems.setdefault(what, []).append(path.name)
    for case, files in channels.items():
        missing = [f"{case}_{n:04d}{file_ending}" for n in range(max(files)) if n not in files]
        if missing:
            problems.setdefault("missing channels (add them, or take the case out)", []).extend(missing)
        if case.endswith("_seg"):
            what = "case names that end in _seg, as the files of nnU-Net's segmentations do (rename them)"
            problems.setdefault(what, []).append(case)
    return {case: [files[n] for n in sorted(files)] for case, files in channels.items()}, problems
