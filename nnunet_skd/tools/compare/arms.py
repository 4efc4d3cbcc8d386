"""What ``nnunet-skd compare`` reads: nnU-Net's results folders, or folders with predictions, as one table of values."""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.configuration import default_num_processes
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw, nnUNet_results
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.file_path_utilities import convert_trainer_plans_config_to_identifier
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.evaluate.command import evaluate_folders
from nnunet_skd.tools.evaluate.metrics import METRICS

SUMMARY_METRICS = ("Dice", "IoU")  # what summary.json holds; its other entries are counts of voxels
LOWER_IS_BETTER = ("HD95", "ASD", "b0_error")
DISTANCES = ("HD95", "ASD")
NO_FOLD = "-"
_NAMED = 8  # cases that one message lists


class Metric(NamedTuple):
    """How to read and print a metric; ``unit`` is empty or starts with a space."""

    higher_is_better: bool
    unit: str
    decimals: int


@dataclass(frozen=True)
class Arm:
    """One thing to compare.

    ``folders`` maps a fold (``-`` for a test set) to the folder with its predictions; ``epoch_seconds`` come from the
    logs.
    """

    name: str
    folders: dict[str, Path]
    epoch_seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """Everything that a report needs.

    ``cases`` has one row per ``arm``, ``fold``, ``case`` and ``label`` and a column per metric in ``metrics``.
    ``reference_dir`` and ``images_dir`` serve the pictures and may be None; ``no_images`` says what to do then.
    """

    title: str
    arms: list[Arm]
    cases: pd.DataFrame
    metrics: dict[str, Metric]
    dataset_json: dict
    reference_dir: Path | None
    images_dir: Path | None
    no_images: str

    @property
    def folds(self) -> list[str]:
        """The folds, none for a test set."""
        return [fold for fold in self.arms[0].folders if fold != NO_FOLD]


def trained_comparison(
    dataset_name_or_id: str | int,
    trainers: Sequence[str],
    *,
    configurations: Sequence[str],
    plans: Sequence[str] = ("nnUNetPlans",),
    folds: Sequence[str | int] = (0, 1, 2, 3, 4),
    metrics: Sequence[str] = ("Dice",),
    images_dir: str | Path | None = None,
    num_processes: int = default_num_processes,
) -> Comparison:
    """Read what trained models reached on the validation cases of their folds.

    Args:
        dataset_name_or_id: as nnU-Net takes it.
        trainers, configurations, plans: one for all arms or one per arm; the first arm is the reference.
        folds: fold numbers or ``all``.
        metrics: of ``nnunet-skd evaluate``. Dice and IoU are read from summary.json; if any other is wanted, all
            are computed from the predictions.
        images_dir: folder with the images; by default the raw dataset's.
        num_processes: cases evaluated at once.

    Raises:
        BadInput: nothing to compare, missing results, different cases, labels or reference segmentations.
    """
    metrics, images_dir = _known_metrics(metrics), _folder(images_dir)
    dataset, arms, dataset_json = trained_arms(
        dataset_name_or_id, trainers, configurations, plans, list(dict.fromkeys(map(str, folds)))
    )
    raw = Path(nnUNet_raw.require()) / dataset if nnUNet_raw.is_set() else None
    references = [raw / "labelsTr"] if raw else []
    if nnUNet_preprocessed.is_set():
        references.insert(0, Path(nnUNet_preprocessed.require()) / dataset / "gt_segmentations")
    reference_dir = next((r for r in references if r.is_dir()), None)
    if set(metrics) <= set(SUMMARY_METRICS):
        cases = summary_values(arms, metrics, dataset_json)
    elif reference_dir is None:
        raise BadInput(
            f"{', '.join(metrics)}: not all in summary.json, and there is neither nnUNet_preprocessed/{dataset}/"
            f"gt_segmentations nor nnUNet_raw/{dataset}/labelsTr to compute them; set these variables, or compare Dice"
        )
    else:
        cases = evaluated_values(arms, reference_dir, dataset_json, metrics, num_processes)
    return Comparison(
        title=", ".join([dataset, *(names[0] for names in (trainers, plans, configurations) if len(set(names)) == 1)]),
        arms=arms,
        cases=cases,
        metrics=_read_as(metrics, cases.attrs.get("distance_unit", "mm")),
        dataset_json=dataset_json,
        reference_dir=reference_dir,
        images_dir=images_dir or (raw if raw and raw.is_dir() else None),
        no_images="set nnUNet_raw to where this dataset lies, or give --images",
    )


def predicted_comparison(
    prediction_dirs: Sequence[str | Path],
    reference_dir: str | Path,
    dataset_json_file: str | Path,
    *,
    metrics: Sequence[str] = ("Dice",),
    images_dir: str | Path | None = None,
    num_processes: int = default_num_processes,
) -> Comparison:
    """Evaluate folders with predictions of the same cases.

    Args:
        prediction_dirs: one per arm; the first is the reference arm.
        reference_dir: reference segmentations of exactly these cases.
        dataset_json_file: nnU-Net's dataset.json.
        metrics: of ``nnunet-skd evaluate``.
        images_dir: folder with the images, for the pictures.
        num_processes: cases evaluated at once.

    Raises:
        BadInput: missing folders or files, different cases.
    """
    metrics, images_dir = _known_metrics(metrics), _folder(images_dir)
    arms = predicted_arms(prediction_dirs)
    reference_dir = Path(reference_dir)
    try:
        dataset_json = load_json(str(dataset_json_file))
        dataset_json["labels"], dataset_json["file_ending"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{dataset_json_file} is not nnU-Net's dataset.json ({type(error).__name__}: {error})"
        ) from error
    cases = evaluated_values(arms, reference_dir, dataset_json, metrics, num_processes, all_references=True)
    return Comparison(
        title=f"{reference_dir.resolve().parent.name}/{reference_dir.resolve().name}",
        arms=arms,
        cases=cases,
        metrics=_read_as(metrics, cases.attrs.get("distance_unit", "mm")),
        dataset_json=dataset_json,
        reference_dir=reference_dir,
        images_dir=images_dir,
        no_images="give --images",
    )


def image_files(images_dir: Path, case: str, dataset_json: dict) -> list[Path]:
    """The files of one case, a channel each; none if there are none.

    Args:
        images_dir: a folder with CASE_0000, CASE_0001, ... or a raw dataset.
        case: its name.
        dataset_json: for the file ending, and for data sets that list their files there.
    """
    # A raw dataset whose dataset.json says where its files are, rather than a folder of images.
    if case in dataset_json.get("dataset", {}) and not list(images_dir.glob(f"*{dataset_json['file_ending']}")):
        files = get_filenames_of_train_images_and_targets(str(images_dir), copy.deepcopy(dataset_json))[case]["images"]
        return [Path(f) for f in files if Path(f).is_file()]
    if (images_dir / "imagesTr").is_dir():
        images_dir = images_dir / "imagesTr"
    name = re.compile(re.escape(case) + r"_\d{4}" + re.escape(dataset_json["file_ending"]))
    return sorted(f for f in images_dir.glob("*") if name.fullmatch(f.name))


def trained_arms(
    dataset_name_or_id: str | int,
    trainers: Sequence[str],
    configurations: Sequence[str],
    plans: Sequence[str],
    folds: Sequence[str],
) -> tuple[str, list[Arm], dict]:
    """Find the results folders of trained models.

    Args:
        dataset_name_or_id: as nnU-Net takes it.
        trainers, configurations, plans: one for all arms or one per arm.
        folds: fold numbers or ``all``.

    Returns:
        The dataset's name, the arms and the dataset.json that their labels agree on.

    Raises:
        BadInput: no such dataset or result, an arm twice, numbers of names that do not fit, different labels.
    """
    if not nnUNet_results.is_set():
        raise BadInput("nnUNet_results is not set; export it as for the training")
    try:
        dataset = maybe_convert_to_dataset_name(dataset_name_or_id)
    except (RuntimeError, ValueError) as error:
        raise BadInput(str(error)) from error
    parts = _one_or_each(**{"-tr": trainers, "-p": plans, "-c": configurations})
    models = [
        Path(nnUNet_results.require()) / dataset / convert_trainer_plans_config_to_identifier(*arm) for arm in parts
    ]
    arms, missing = [], []
    for name, (trainer, plan, configuration), model in zip(_short_names(parts), parts, models, strict=True):
        folders = {fold: model / f"fold_{fold}" / "validation" for fold in folds}
        for fold, folder in folders.items():
            if not (folder / "summary.json").is_file():
                command = f"nnUNetv2_train {dataset} {configuration} {fold} -tr {trainer} -p {plan}"
                state = " --val" if (folder.parent / "checkpoint_final.pth").is_file() else ""
                missing.append(f"  {folder / 'summary.json'}\n    {command}{state}")
        arms.append(Arm(name, folders, [s for f in folders.values() for s in epoch_seconds(f.parent)]))
    if missing:
        raise BadInput(
            "no validation result here; make it with the command below it, or leave the fold out with -f:\n"
            + "\n".join(missing)
        )
    return dataset, arms, _common_dataset_json(arms, models)


def predicted_arms(folders: Sequence[str | Path]) -> list[Arm]:
    """One arm per folder with predictions, named after the folder.

    Raises:
        BadInput: fewer than two folders, or one that is missing or given twice.
    """
    folders = [Path(f) for f in folders]
    for folder in folders:
        if not folder.is_dir():
            raise BadInput(f"{folder} is not a folder; --pred takes one folder with predictions per arm")
    if len(folders) < 2 or len({f.resolve() for f in folders}) < len(folders):
        raise BadInput("--pred takes two or more different folders, the reference arm first")
    names = [f.resolve().name for f in folders]
    if len(set(names)) < len(names):
        names = [f.as_posix() for f in folders]
    return [Arm(name, {NO_FOLD: folder}) for name, folder in zip(names, folders, strict=True)]


def summary_values(arms: Sequence[Arm], metrics: Sequence[str], dataset_json: dict) -> pd.DataFrame:
    """The values of all cases from nnU-Net's summary.json.

    Returns:
        One row per ``arm``, ``fold``, ``case`` and ``label``, with one column per metric.

    Raises:
        BadInput: unreadable files, different cases, or reference segmentations that changed between the validations.
    """
    rows = []
    for arm in arms:
        for fold, folder in arm.folders.items():
            rows += _read_summary(arm.name, fold, folder / "summary.json", metrics, dataset_json)
    cases = pd.DataFrame(rows).astype(dict.fromkeys(metrics, float))
    check_same_cases(cases.groupby(["arm", "fold"], sort=False)["case"].agg(set).to_dict())
    _check_same_reference(cases)
    return cases.drop(columns="n_ref")


def evaluated_values(
    arms: Sequence[Arm],
    reference_dir: Path,
    dataset_json: dict,
    metrics: Sequence[str],
    num_processes: int,
    *,
    all_references: bool = False,
) -> pd.DataFrame:
    """The values of all cases, computed from the predictions as ``nnunet-skd evaluate`` does.

    Args:
        arms: their folders hold the predictions.
        reference_dir: reference segmentations.
        dataset_json: labels, regions, ignore label and file ending.
        metrics: names that ``evaluate`` knows.
        num_processes: cases evaluated at once.
        all_references: refuse references that nobody predicted.

    Returns:
        One row per ``arm``, ``fold``, ``case`` and ``label``, with one column per metric.

    Raises:
        BadInput: different cases, or a case without its counterpart.
    """
    ending = dataset_json["file_ending"]
    files = {(arm.name, fold): case_names(folder, ending) for arm in arms for fold, folder in arm.folders.items()}
    check_same_cases(files)
    references, predicted = case_names(reference_dir, ending), set().union(*files.values())
    if predicted - references:
        raise BadInput(f"{reference_dir} has no reference segmentation for {listed(predicted - references)}")
    if all_references and references - predicted:
        raise BadInput(
            f"no arm predicted {listed(references - predicted)} of {reference_dir}: predict them, or name a folder "
            "with the references of the predicted cases only"
        )
    frames = []
    for arm in arms:
        for fold, folder in arm.folders.items():
            print(f"Evaluating {arm.name}{'' if fold == NO_FOLD else f', fold {fold}'}")
            frame = evaluate_folders(
                reference_dir, folder, dataset_json, num_processes=num_processes, metrics=metrics, chill=True
            )
            frames.append(frame.assign(arm=arm.name, fold=fold))
    cases = pd.concat(frames, ignore_index=True)[["arm", "fold", "case", "label", *metrics]]
    cases.attrs = frames[0].attrs
    return cases


def case_names(folder: Path, file_ending: str) -> set[str]:
    """The cases of a folder with segmentations.

    Raises:
        BadInput: there are none.
    """
    names = {f.name.removesuffix(file_ending) for f in Path(folder).glob(f"*{file_ending}")}
    if not names:
        raise BadInput(f"{folder} holds no {file_ending} file; the file ending is the one in dataset.json")
    return names


def check_same_cases(cases: dict[tuple[str, str], set[str]]) -> None:
    """Refuse arms whose cases differ.

    Args:
        cases: (arm, fold) -> names of the cases; the first arm is the one that the others are held against.

    Raises:
        BadInput: with the cases that only one of two arms has.
    """
    reference = next(iter(cases))[0]
    problems = []
    for (arm, fold), names in cases.items():
        expected = cases[reference, fold]
        where = "" if fold == NO_FOLD else f"fold {fold}: "
        problems += [
            f"  {where}only {who} has {listed(only)}"
            for who, only in ((reference, expected - names), (arm, names - expected))
            if only
        ]
    if problems:
        raise BadInput(
            "the arms hold different cases, so they cannot be paired:\n"
            + "\n".join(problems)
            + "\nTrain with the same splits_final.json, predict the missing cases, or leave the fold out with -f"
        )


def listed(names) -> str:
    """A few names in order, and how many more there are."""
    names = sorted(names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def label_names(dataset_json: dict) -> dict[str, str]:
    """Names of the classes by their key in summary.json: ``"1"`` for a label, ``"(1, 2)"`` for a region."""
    return {
        str(tuple(int(i) for i in value)) if isinstance(value, (list, tuple)) else str(int(value)): name
        for name, value in dataset_json["labels"].items()
    }


def epoch_seconds(fold_folder: Path) -> list[float]:
    """Seconds of every epoch in nnU-Net's training logs of one fold (several logs if the training was continued)."""
    return [
        float(seconds)
        for log in sorted(fold_folder.glob("training_log_*.txt"))
        for seconds in re.findall(r"Epoch time: ([\d.]+) s", log.read_text(encoding="utf-8", errors="replace"))
    ]


def _known_metrics(metrics: Sequence[str]) -> list[str]:
    unknown = [m for m in metrics if m not in METRICS]
    if unknown:
        raise BadInput(f"--metric {' '.join(unknown)} is unknown; known are {', '.join(METRICS)}")
    return list(dict.fromkeys(metrics))


def _folder(folder: str | Path | None) -> Path | None:
    if folder is not None and not Path(folder).is_dir():
        raise BadInput(f"--images {folder} is not a folder")
    return None if folder is None else Path(folder)


def _read_as(metrics: list[str], distance_unit: str) -> dict[str, Metric]:
    return {
        m: Metric(
            m not in LOWER_IS_BETTER, f" {distance_unit}" if m in DISTANCES else "", 2 if m in LOWER_IS_BETTER else 4
        )
        for m in metrics
    }


def _one_or_each(**names: Sequence[str]) -> list[tuple[str, ...]]:
    """The arms' parts; a single name stands for every arm."""
    count = max(len(n) for n in names.values())
    for flag, given in names.items():
        if len(given) not in (1, count):
            raise BadInput(f"{flag} names {len(given)}, but there are {count} arms: give one name, or one per arm")
    arms = list(zip(*(n * count if len(n) == 1 else n for n in map(list, names.values())), strict=True))
    if len(set(arms)) < max(2, count):
        raise BadInput(
            "nothing to compare: name two or more different trainers (-tr), plans (-p) or configurations (-c)"
        )
    return arms


def _short_names(parts: list[tuple[str, ...]]) -> list[str]:
    """Only the parts in which the arms differ: the title of the report holds the others."""
    varying = [i for i in range(len(parts[0])) if len({arm[i] for arm in parts}) > 1]
    return [" ".join(arm[i] for i in varying) for arm in parts]


def _common_dataset_json(arms: list[Arm], models: list[Path]) -> dict:
    contents = []
    for model in models:
        try:
            contents.append(load_json(str(model / "dataset.json")))
        except (OSError, ValueError) as error:
            raise BadInput(f"{model / 'dataset.json'} cannot be read ({error}); nnUNetv2_train writes it") from error
    for arm, content in zip(arms, contents, strict=True):
        if content["labels"] != contents[0]["labels"]:
            raise BadInput(
                f"{arms[0].name} and {arm.name} were trained on different labels: {contents[0]['labels']} and "
                f"{content['labels']}; train one of them again"
            )
    return contents[0]


def _read_summary(arm: str, fold: str, path: Path, metrics: Sequence[str], dataset_json: dict) -> list[dict]:
    names = label_names(dataset_json)
    try:
        rows = [
            {
                "arm": arm,
                "fold": fold,
                # Both kinds of slashes: the training may have run elsewhere.
                "case": re.split(r"[\\/]", entry["prediction_file"])[-1].removesuffix(dataset_json["file_ending"]),
                "label": names.get(key, key),
                "n_ref": values["n_ref"],
                **{metric: values[metric] for metric in metrics},
            }
            for entry in load_json(str(path))["metric_per_case"]
            for key, values in entry["metrics"].items()
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path} is not a summary of nnU-Net's validation ({type(error).__name__}: {error}); "
            "write it again with nnUNetv2_train ... --val"
        ) from error
    if not rows:
        raise BadInput(f"{path} holds no case; write it again with nnUNetv2_train ... --val")
    return rows


def _check_same_reference(cases: pd.DataFrame) -> None:
    """The reference has as many voxels of a class in every arm, or somebody changed it between the validations."""
    sizes = cases.groupby(["fold", "case", "label"])["n_ref"].nunique(dropna=False)
    changed = sizes.index[sizes > 1].get_level_values("case").unique()
    if len(changed):
        raise BadInput(
            f"the reference segmentation changed between the arms' validations, in {listed(changed)}; "
            "validate every arm again with nnUNetv2_train ... --val"
        )
