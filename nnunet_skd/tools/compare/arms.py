"""The arms of a comparison: nnU-Net's results folders, or folders with predictions."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2.utilities.file_path_utilities import convert_trainer_plans_config_to_identifier

from nnunet_skd.model_folds import CHECKPOINT, GOES_ON_FROM
from nnunet_skd.tools.compare.training_logs import VALIDATED, begun_since, epoch_seconds
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.files import require_folder
from nnunet_skd.tools.model_arms import same_labels
from nnunet_skd.tools.nnunet_folders import dataset_name, require_variable

NO_FOLD = "-"


@dataclass(frozen=True)
class Arm:
    """One thing to compare.

    ``folders`` maps a fold (``-`` for a test set) to the folder with its predictions; ``epoch_seconds`` come from the
    logs.
    """

    name: str
    folders: dict[str, Path]
    epoch_seconds: list[float] = field(default_factory=list)


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
        BadInput: no such dataset or result, a result of an earlier training, an arm twice, different numbers of names,
            different labels, damaged logs.
    """
    dataset, parts, models = model_folders(dataset_name_or_id, trainers, configurations, plans)
    arms, missing, old = [], [], []
    for name, (trainer, plan, configuration), model in zip(short_names(parts), parts, models, strict=True):
        folders = {fold: model / f"fold_{fold}" / "validation" for fold in folds}
        for fold, folder in folders.items():
            if not (folder / "summary.json").is_file():
                command = f"nnUNetv2_train {dataset} {configuration} {fold} -tr {trainer} -p {plan}"
                begun = any((folder.parent / name).is_file() for name in GOES_ON_FROM)
                state = " --val" if (folder.parent / CHECKPOINT).is_file() else " --c" if begun else ""
                missing.append(f"  {folder / 'summary.json'}\n    {command}{state}")
            elif begun_since(folder.parent, VALIDATED):
                old.append(f"  {folder.parent}")
        arms.append(Arm(name, folders, [s for f in folders.values() for s in epoch_seconds(f.parent)]))
    if missing:
        raise BadInput(
            "no validation result here; wait for it where the training still runs, else make it with the command below "
            "it, or leave the fold out with -f:\n" + "\n".join(missing)
        )
    if old:
        raise BadInput(
            "the validation here is that of an earlier training: the logs hold epochs after it. Wait for the training "
            "and its validation. Was it stopped? Move the earlier checkpoint_final.pth away before --c, which would "
            "take it for the end of this one. Is the earlier training the one you mean? Validate it again with --val. "
            "Or leave the fold out with -f:\n" + "\n".join(old)
        )
    return dataset, arms, same_labels(models)


def model_folders(
    dataset_name_or_id: str | int,
    trainers: Sequence[str],
    configurations: Sequence[str],
    plans: Sequence[str],
    *,
    fewest: int = 2,
) -> tuple[str, list[tuple[str, ...]], list[Path]]:
    """Where the models of the arms lie.

    Args:
        dataset_name_or_id: as nnU-Net takes it.
        trainers, configurations, plans: one for all arms or one per arm.
        fewest: arms that are needed.

    Returns:
        The dataset's name; (trainer, plans, configuration) and the folder of each arm, which need not exist.

    Raises:
        BadInput: no such dataset, an arm twice, different numbers of names.
    """
    results = require_variable("nnUNet_results")
    dataset = dataset_name(dataset_name_or_id)
    parts = _one_or_each({"-tr": trainers, "-p": plans, "-c": configurations}, fewest)
    return dataset, parts, [results / dataset / convert_trainer_plans_config_to_identifier(*arm) for arm in parts]


def predicted_arms(folders: Sequence[str | Path]) -> list[Arm]:
    """One arm per folder with predictions, named after the folder.

    Raises:
        BadInput: fewer than two folders, or one that is missing or given twice.
    """
    folders = [require_folder(folder) for folder in folders]
    if len(folders) < 2 or len({f.resolve() for f in folders}) < len(folders):
        raise BadInput("--pred takes two or more different folders, the reference arm first")
    names = [f.resolve().name for f in folders]
    if len(set(names)) < len(names):
        names = [f.as_posix() for f in folders]
    return [Arm(name, {NO_FOLD: folder}) for name, folder in zip(names, folders, strict=True)]


def _one_or_each(names: dict[str, Sequence[str]], fewest: int) -> list[tuple[str, ...]]:
    """The arms' parts by the flag that names them; a single name stands for every arm."""
    count = max(len(n) for n in names.values())
    for flag, given in names.items():
        if len(given) not in (1, count):
            raise BadInput(f"{flag} names {len(given)}, but there are {count} arms: give one name, or one per arm")
    arms = list(zip(*(n * count if len(n) == 1 else n for n in map(list, names.values())), strict=True))
    if len(set(arms)) < max(fewest, count):
        raise BadInput(
            "nothing to compare: name two or more different trainers (-tr), plans (-p) or configurations (-c)"
        )
    return arms


def short_names(parts: list[tuple[str, ...]]) -> list[str]:
    """Only the parts in which the arms differ: the title of the report holds the others."""
    if len(parts) == 1:
        return [parts[0][0]]
    varying = [i for i in range(len(parts[0])) if len({arm[i] for arm in parts}) > 1]
    return [" ".join(arm[i] for i in varying) for arm in parts]
