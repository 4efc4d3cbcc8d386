"""Train one network with finished models as its teacher: five folds into one network, or a big one into a compact one.

  nnunet-skd distill -d 80 -c 2d_w050 --teacher nnUNetTrainer__nnUNetPlans__2d -f all

checks that the models may teach, says what it will do, prints nnU-Net's own command and runs it:

  nnUNet_skd_teacher=MODEL_FOLDER nnUNetv2_train 80 2d_w050 all -tr nnUNetTrainerDistill

A model is a folder that nnUNetv2_train wrote, or its name in $nnUNet_results/DATASET. Several may teach together, of
other trainers, configurations and plans too, as long as they were trained on this dataset and see its images alike. A
student of fold f is only taught by fold f of each model: every other has seen its validation cases. A student of fold
all (the default) is taught by every finished fold. Images without labels (nnunet-skd unlabelled) are used where there
are any.

The checkpoint remembers the teachers: --c needs no --teacher, and nnUNetv2_train --c no variable.
"""

import argparse
import os
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace

from nnunetv2.utilities.file_path_utilities import get_output_folder
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_skd.compat import nnunet_folder
from nnunet_skd.finished_models import FinishedModels
from nnunet_skd.model_checks import VARIABLE, check_model, teaching_folds
from nnunet_skd.tools.compact.plans import read_dataset_plans
from nnunet_skd.tools.demo.processes import program
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.json_file import TEXT, read_json
from nnunet_skd.tools.nnunet_json import read_dataset_json, read_plans
from nnunet_skd.tools.trainers import look_up
from nnunet_skd.unlabelled_data import checked_cases, read_record, unlabelled_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", required=True, metavar="DATASET", help="dataset id or name")
    parser.add_argument(
        "-c", dest="configuration", required=True, metavar="CONFIGURATION", help="of the student, such as 2d_w050"
    )
    parser.add_argument("--teacher", nargs="+", default=[], metavar="MODEL", help="model folders, or their names")
    parser.add_argument("-f", default="all", metavar="FOLD", help="of the student (default: %(default)s)")
    parser.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="of the student (default: %(default)s)")
    parser.add_argument("-tr", default="nnUNetTrainerDistill", metavar="TRAINER", help="default: %(default)s")
    parser.add_argument("-device", choices=("cuda", "cpu", "mps"), default="cuda", help="default: %(default)s")
    parser.add_argument(
        "-pretrained_weights", metavar="FILE", help="checkpoint to start from, as nnUNetv2_train -pretrained_weights"
    )
    parser.add_argument("--c", dest="continued", action="store_true", help="continue a training, as nnUNetv2_train --c")
    parser.add_argument("--npz", action="store_true", help="save probabilities, as nnUNetv2_train --npz")


def run(args: argparse.Namespace) -> int:
    if nnunet_folder("nnUNet_results") is None:
        raise BadInput("nnUNet_results is not set. Export it as for the training")
    if not isinstance(getattr(look_up(args.tr), "teacher", None), FinishedModels):
        raise BadInput(f"-tr {args.tr} is not taught by finished models. Use nnUNetTrainerDistill or a variant of it")
    if args.pretrained_weights and args.continued:
        raise BadInput("-pretrained_weights does not go with --c, which continues from its own checkpoint")
    if args.pretrained_weights and not Path(args.pretrained_weights).is_file():
        raise BadInput(f"-pretrained_weights {args.pretrained_weights} is not a file. Name a checkpoint_final.pth")
    student = _student(args)
    folders = [_model_folder(model, student.plans_manager.dataset_name) for model in args.teacher]
    if not folders and not args.continued:
        raise BadInput("name the models that teach, for example --teacher nnUNetTrainer__nnUNetPlans__2d")
    try:
        for folder in folders:
            read_plans(folder / "plans.json")
            read_dataset_json(folder / "dataset.json", channels=True)
            check_model(folder, student)
            print(f"Teacher: {folder.name}, fold {', '.join(teaching_folds(folder, student))}")
        print(f"Student: {args.configuration}, fold {args.f}, {_unlabelled(student)}")
    except ValueError as error:
        raise BadInput(str(error)) from error
    train = ["nnUNetv2_train", args.d, args.configuration, args.f, "-tr", args.tr, "-p", args.p]
    train += ["-device", args.device] * (args.device != "cuda") + ["--c"] * args.continued + ["--npz"] * args.npz
    train += ["-pretrained_weights", args.pretrained_weights] * (args.pretrained_weights is not None)
    teachers = {VARIABLE: os.pathsep.join(map(str, folders))} if folders else {}
    print("$", *(f"{name}={shlex.quote(value)}" for name, value in teachers.items()), shlex.join(train), flush=True)
    return subprocess.run([program(train[0]), *train[1:]], env=os.environ | teachers).returncode  # noqa: S603 - no shell, nnU-Net's command


def _student(args: argparse.Namespace) -> SimpleNamespace:
    """What :mod:`nnunet_skd.model_checks` asks of a trainer, without building one.

    Raises:
        BadInput: the dataset is not preprocessed, has no such configuration, or no such fold.
    """
    file, content = read_dataset_plans(args.d, args.p)
    plans = PlansManager(content)
    if args.configuration not in plans.available_configurations:
        raise BadInput(
            f"{file} has no configuration {args.configuration!r}. It has: {', '.join(plans.available_configurations)}. "
            f"'nnunet-skd compact' adds smaller ones."
        )
    if args.f != "all" and not args.f.isdigit():
        raise BadInput(f"-f is {args.f!r}, but has to be 'all' or a number")
    if "data_identifier" not in plans.get_configuration(args.configuration).configuration:
        raise BadInput(f"{file}: configurations.{args.configuration} lacks data_identifier. Plan it again")
    splits = file.parent / "splits_final.json"
    remedy = "Restore it, or remove it, and nnU-Net makes a new one"
    folds = read_json(splits, [{"train": [TEXT], "val": [TEXT]}], remedy) if splits.is_file() else []
    number, there_are = len(folds), f"{splits} holds {len(folds)}"
    if not splits.is_file():
        number, there_are = 5, "nnU-Net will make 5 in the first training"
    if args.f != "all" and int(args.f) >= number:
        raise BadInput(
            f"there is no fold {args.f}: {there_are}, counted from 0. For any other number nnU-Net draws other "
            "validation cases, which the teacher may have seen. Choose one of them, or all"
        )
    validation = folds[int(args.f)]["val"] if args.f != "all" and folds else []
    return SimpleNamespace(
        plans_manager=plans,
        configuration_manager=plans.get_configuration(args.configuration),
        configuration_name=args.configuration,
        dataset_json=read_dataset_json(file.parent / "dataset.json", channels=True),
        fold=args.f if args.f == "all" else int(args.f),
        trainer_name=args.tr,
        output_folder_base=get_output_folder(plans.dataset_name, args.tr, args.p, args.configuration),
        do_split=lambda: ([], validation),
    )


def _model_folder(model: str, dataset: str) -> Path:
    """A path, or the name of a folder in nnUNet_results.

    Raises:
        BadInput: there is neither.
    """
    places = [Path(model).expanduser()]
    results = nnunet_folder("nnUNet_results")
    if results is not None:
        places.append(results / dataset / model)
    for place in places:
        if place.is_dir():
            return place.resolve()
    known = sorted(path.name for path in places[-1].parent.glob("*__*__*"))
    raise BadInput(
        f"{' and '.join(map(str, places))} are not folders. "
        f"Trained models of {dataset}: {', '.join(known) or 'none in nnUNet_results'}"
    )


def _unlabelled(student: SimpleNamespace) -> str:
    """How many images without labels the student will see.

    Raises:
        ValueError: there are some, but they do not fit the plans.
    """
    plans, configuration = student.plans_manager, student.configuration_name
    if read_record(unlabelled_folder(plans, configuration)) is None:
        return "no images without labels"
    return f"{len(checked_cases(plans, configuration))} images without labels"
