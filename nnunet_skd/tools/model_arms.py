"""Arms that are named by model folders on the command line: NAME=FOLDER[:FOLDER...][@FOLD,FOLD...][@nomirror]."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_skd.model_checks import meaning
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.nnunet_json import read_dataset_json, read_plans
from nnunet_skd.tools.source_dataset import source_of

SYNTAX = f"NAME=FOLDER[{os.pathsep}FOLDER...][@FOLD,FOLD...]"
_FOLDS = r"(?:all|\d+)(?:,(?:all|\d+))*"


@dataclass(frozen=True)
class ModelArm:
    """Folders that nnUNetv2_train wrote, and what to take of them.

    ``folds`` is empty where the command line does not name them.
    """

    name: str
    folders: tuple[Path, ...]
    folds: tuple[str, ...] = ()
    mirror: bool = True


def parse_model_arms(texts: Sequence[str]) -> list[ModelArm]:
    """The arms of the command line.

    Raises:
        BadInput: not of this form, a name twice, a folder that does not exist or that no training wrote.
    """
    arms = [_parse(text) for text in texts]
    names = [arm.name for arm in arms]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise BadInput(f"two arms are named {twice!r}. Give each a name of its own")
    return arms


def same_dataset(models: Sequence[Path]) -> dict:
    """The dataset.json that all models agree on. A dataset with pseudo-labels counts as the one that it was made of.

    Raises:
        BadInput: models of different datasets or labels, or without readable plans.json and dataset.json.
    """
    names = [read_plans(model / "plans.json")["dataset_name"] for model in models]
    for model, name in zip(models, names, strict=True):
        if (source_of(name) or name) != (source_of(names[0]) or names[0]):
            raise BadInput(
                f"{models[0]} and {model} were trained on different datasets: {names[0]} and {name}. "
                "Compare models of one dataset"
            )
    return same_labels(models)


def same_labels(models: Sequence[Path]) -> dict:
    """The dataset.json of the models, whose labels they agree on; one with an ignore label where any has one.

    No model predicts the ignore label, so models that were trained with and without it can be compared.

    Raises:
        BadInput: different labels, or a dataset.json that cannot be read.
    """
    contents = [read_dataset_json(model / "dataset.json") for model in models]
    predicted = [{name: v for name, v in content["labels"].items() if name != "ignore"} for content in contents]
    for model, labels in zip(models, predicted, strict=True):
        if labels != predicted[0]:
            raise BadInput(
                f"{models[0]} and {model} were trained on different labels: {predicted[0]} and {labels}. Compare "
                "models of the same labels, or train one of them again"
            )
    return next((content for content in contents if "ignore" in content["labels"]), contents[0])


def require_same_channels(models: Sequence[Path]) -> None:
    """Refuse models that read the channels of an image, or write those of regions, in different orders.

    Raises:
        BadInput: what differs, or a dataset.json that cannot be read.
    """
    meanings = [meaning(read_dataset_json(model / "dataset.json", channels=True)) for model in models]
    for model, theirs in zip(models, meanings, strict=True):
        for what, value in meanings[0].items():
            if theirs[what] != value:
                raise BadInput(
                    f"{models[0]} and {model} differ in {what}: {value} and {theirs[what]}. Compare models whose "
                    "dataset.json has them in one order"
                )


def _parse(text: str) -> ModelArm:
    match = re.fullmatch(rf"([^=]+)=(.+?)((?:@(?:nomirror|{_FOLDS}))*)", text)
    if match is None:
        raise BadInput(f"{text!r} does not name an arm. The form is {SYNTAX}")
    name, folders, options = match.groups()
    options = options.split("@")[1:]
    folds = [option for option in options if option != "nomirror"]
    if len(folds) > 1:
        raise BadInput(f"{text!r} says twice which folds. The form is {SYNTAX}")
    paths = tuple(Path(folder).expanduser() for folder in folders.split(os.pathsep))
    for path in paths:
        if not (path / "plans.json").is_file():
            raise BadInput(
                f"{path} is not a folder that nnUNetv2_train wrote (no plans.json in it). Name "
                "nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION"
            )
    return ModelArm(
        name.strip(),
        paths,
        tuple(dict.fromkeys(folds[0].split(","))) if folds else (),
        "nomirror" not in options,
    )
