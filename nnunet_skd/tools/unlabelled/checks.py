"""Refuse images that cannot be used, by name and before anything is preprocessed."""

from pathlib import Path

from nnunet_skd.messages import listed
from nnunet_skd.tools.cases import Cases, Problems, find_cases
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.files import require_folder
from nnunet_skd.tools.parallel import for_each_case
from nnunet_skd.tools.unlabelled.dataset import Dataset, labelled_files, labelled_names, test_images
from nnunet_skd.tools.unlabelled.images import Content, read_content


def cases_of_folder(folder: Path, dataset: Dataset, configurations: list[str]) -> Cases:
    """The cases in a folder, checked by their names, for trainings of these configurations.

    Raises:
        BadInput: no such folder; there are no images; missing channels, other file endings, names of labelled cases.
    """
    cases, problems = find_cases(require_folder(folder), dataset.file_ending)
    labelled = labelled_names(dataset, configurations)
    for case in sorted(cases.keys() & labelled.keys()):
        what = (
            f"names of labelled cases of {labelled[case]} (take them out, or rename them if they show something else; "
            "or remove them there, if they are labelled no more)"
        )
        problems.setdefault(what, []).append(case)
    _refuse(problems, folder)
    if not cases:
        raise BadInput(
            f"{folder} holds no images. They have to lie in the folder itself and to be named as nnU-Net's:"
            f" CASE_0000{dataset.file_ending}, with one file for each channel"
        )
    return cases


def is_of_folder(entry: dict, folder: Path) -> bool:
    """Whether a known case was taken from this folder."""
    return all(Path(image).parent == folder.resolve() for image in entry["images"])


def check_contents(
    cases: Cases, known: dict[str, dict], folder: Path, dataset: Dataset, processes: int
) -> dict[str, Content]:
    """Read the cases and check what is in them.

    Args:
        cases: new or changed ones.
        known: entries of the record for all cases that were read before. Those of this folder are compared with the
            labelled images too, which may be new.
        folder: where the cases are.
        processes: that read images.

    Returns:
        What is in each case.

    Raises:
        BadInput: images that cannot be read or are not finite, other numbers of channels, images that equal a labelled
            one or one another, or another image of the same name that was preprocessed from another folder.
    """
    contents = _read(cases, dataset, processes, "checking images")
    hashes = {case: content.hash for case, content in contents.items()}
    problems = _unusable(contents, cases, dataset)
    if labelled := {case: images for case, (images, _) in labelled_files(dataset).items()}:
        labelled_contents = _read(labelled, dataset, processes, "reading labelled images")
        unchanged = {case: entry["content"] for case, entry in known.items() if is_of_folder(entry, folder)}
        problems["images that equal a labelled one (take them out)"] = _equal(unchanged | hashes, labelled_contents)
        _tell_unreadable(labelled_contents, "labelled")
    else:
        print("nnUNet_raw does not hold the labelled images: whether an image equals one of them was not checked.")
    problems["images that are there twice (keep one of them)"] = _twice(hashes, known)
    problems[
        "other images of the same name were preprocessed before (rename the new ones, or begin anew: --remove)"
    ] = [
        f"{case} of {Path(known[case]['images'][0]).parent}"
        for case in cases.keys() & known.keys()
        if hashes[case] != known[case]["content"] and _is_elsewhere(known[case], folder)
    ]
    _refuse(problems, folder)
    if contents and (test := test_images(dataset)):
        test_contents = _read(test, dataset, processes, "reading test images")
        _tell_unreadable(test_contents, "test")
        if equal := _equal(hashes, test_contents):
            print(f"These equal a test image, so that results on imagesTs are not of unseen images: {listed(equal)}.")
    return contents


def _read(cases: Cases, dataset: Dataset, processes: int, title: str) -> dict[str, Content]:
    reader = dataset.plans.image_reader_writer_class
    jobs = {case: (images, reader) for case, images in cases.items()}
    return dict(for_each_case(read_content, jobs, processes, title)) if jobs else {}


def _refuse(problems: Problems, folder: Path) -> None:
    """Raise if there is anything to name."""
    lines = [f"{what}: {listed(names)}" for what, names in problems.items() if names]
    if lines:
        raise BadInput("\n  ".join([f"nothing of {folder} was used, because of", *lines]))


def _unusable(contents: dict[str, Content], cases: Cases, dataset: Dataset) -> Problems:
    channels, ending = len(dataset.channel_names), dataset.file_ending
    unreadable, missing, infinite = [], [], []
    other = []
    for case, content in sorted(contents.items()):
        if content.problem:
            unreadable.append(f"{' '.join(path.name for path in cases[case])} ({content.problem})")
        elif content.channels < channels and content.channels == len(cases[case]):
            missing += [f"{case}_{n:04d}{ending}" for n in range(content.channels, channels)]
        elif content.channels != channels:
            other.append(f"{case} has {content.channels}")
        elif not content.finite:
            infinite.append(case)
    return {
        "files that cannot be read (fix them or take them out)": unreadable,
        "missing channels (add them, or take the case out)": missing,
        f"other channels than the dataset's {channels} ({', '.join(dataset.channel_names)})": other,
        "values that are NaN or infinite (fix the images or take them out)": infinite,
    }


def _equal(hashes: dict[str, str], others: dict[str, Content]) -> list[str]:
    by_hash = {content.hash: name for name, content in others.items() if not content.problem}
    return [f"{case} = {by_hash[content]}" for case, content in sorted(hashes.items()) if content in by_hash]


def _twice(hashes: dict[str, str], known: dict[str, dict]) -> list[str]:
    """Cases whose content equals that of a known case or of one before it in the alphabet."""
    first_with = {entry["content"]: case for case, entry in known.items() if case not in hashes}
    twice = []
    for case, content in sorted(hashes.items()):
        if content and first_with.setdefault(content, case) != case:
            twice.append(f"{case} = {first_with[content]}")
    return twice


def _is_elsewhere(entry: dict, folder: Path) -> bool:
    """Whether a known case's images still lie in another folder."""
    images = [Path(path) for path in entry["images"]]
    return all(path.is_file() for path in images) and not images[0].parent.samefile(folder)


def _tell_unreadable(contents: dict[str, Content], kind: str) -> None:
    if unreadable := [case for case, content in contents.items() if content.problem]:
        print(f"{kind} images that cannot be read were not compared: {listed(unreadable)}.")
