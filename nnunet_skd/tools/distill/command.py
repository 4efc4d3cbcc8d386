"""Train one network with finished models as its teacher: five folds into one network, or a big one into a compact one.

  nnunet-skd distill -d 80 -c 2d_w050 --teacher nnUNetTrainer__nnUNetPlans__2d -f all

checks that the models may teach, says what it will do, prints nnU-Net's own command and runs it:

  nnUNet_skd_teacher=MODEL_FOLDER nnUNetv2_train 80 2d_w050 all -tr nnUNetTrainerDistill

A model is a folder that nnUNetv2_train wrote, or its name in $nnUNet_results/DATASET. Several may teach together, of
other trainers, configurations and plans too, as long as they were trained on this dataset and see its images alike. A
student of fold f is only taught by fold f of each model: every other has seen its validation cases. A student of fold
all (the default) is taught by every finished fold. Images without labels (nnunet-skd unlabelled) are used where there
are any.

Starting weights (-pretrained_weights) of a model of this dataset, or of one that 'nnunet-skd pseudo-labels' made from
it, have to be those of the student's fold. Where they are those of the student's whole network, and of its labels, the
last layer is kept, which nnU-Net's own -pretrained_weights makes anew: they are laid into nnUNet_results as a
checkpoint from before the first epoch, which --c continues. Otherwise nnU-Net takes what fits.

The checkpoint remembers the teachers: --c needs no --teacher, and nnUNetv2_train --c no variable. Without --c a
training that is there already is refused, not begun anew.
"""

import argparse
import os
from pathlib import Path
from types import SimpleNamespace

from nnunet_skd.finished_models import FinishedModels
from nnunet_skd.model_checks import VARIABLE, check_model, meaning
from nnunet_skd.model_folds import teaching_folds
from nnunet_skd.tools.beginning import OtherWeights, begin, was_trained
from nnunet_skd.tools.checkpoint_file import read_checkpoint
from nnunet_skd.tools.commands import show_and_run
from nnunet_skd.tools.devices import find_device
from nnunet_skd.tools.errors import BadInput, as_bad_input, naming
from nnunet_skd.tools.nnunet_json import read_dataset_json, read_plans
from nnunet_skd.tools.source_dataset import source_of
from nnunet_skd.tools.teaching import describe_student, teacher_folders
from nnunet_skd.tools.trainers import look_up
from nnunet_skd.unlabelled_data import checked_cases, read_record, unlabelled_folder, why_not_unlabelled


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
        "-pretrained_weights", metavar="FILE", help="checkpoint to start from; the last layer is kept where it fits"
    )
    parser.add_argument("--c", dest="continued", action="store_true", help="continue a training, as nnUNetv2_train --c")
    parser.add_argument("--npz", action="store_true", help="save probabilities, as nnUNetv2_train --npz")


def run(args: argparse.Namespace) -> int:
    find_device(args.device)
    if not isinstance(getattr(look_up(args.tr), "teacher", None), FinishedModels):
        raise BadInput(f"-tr {args.tr} is not taught by finished models. Use nnUNetTrainerDistill or a variant of it")
    if args.pretrained_weights and args.continued:
        raise BadInput("-pretrained_weights does not go with --c, which continues from its own checkpoint")
    if args.pretrained_weights and not Path(args.pretrained_weights).is_file():
        raise BadInput(f"-pretrained_weights {args.pretrained_weights} is not a file. Name a checkpoint_final.pth")
    student = describe_student(args.d, args.configuration, args.f, args.tr, args.p)
    fold = Path(student.output_folder_base) / f"fold_{args.f}"
    if was_trained(fold) and not args.continued:
        raise BadInput(f"{fold} holds a training already. Continue it with --c, or move it away to begin anew")
    if args.continued and not any(fold.glob("checkpoint_*.pth")):
        raise BadInput(f"{fold} holds no training to continue. Check -tr, -c, -f and -p, or begin it without --c")
    folders = teacher_folders(args.teacher, student.plans_manager.dataset_name)
    if not folders and not args.continued:
        raise BadInput("name the models that teach, for example --teacher nnUNetTrainer__nnUNetPlans__2d")
    if args.pretrained_weights and args.f != "all":
        with naming(f"-pretrained_weights {args.pretrained_weights}"), as_bad_input():
            _refuse_seen(Path(args.pretrained_weights).resolve(), student)
    with as_bad_input():
        for folder in folders:
            read_plans(folder / "plans.json")
            read_dataset_json(folder / "dataset.json", channels=True)
            check_model(folder, student)
            print(f"Teacher: {folder.name}, fold {', '.join(teaching_folds(folder, student))}")
        print(f"Student: {args.configuration}, fold {args.f}, {_unlabelled(student)}")
    train = ["nnUNetv2_train", args.d, args.configuration, args.f, "-tr", args.tr, "-p", args.p]
    train += ["-device", args.device] * (args.device != "cuda") + ["--npz"] * args.npz
    if args.continued or (args.pretrained_weights and _begins_with_all_weights(args, student, folders)):
        train.append("--c")
    elif args.pretrained_weights:
        train += ["-pretrained_weights", args.pretrained_weights]
    # without --teacher, a variable of another training must not replace the teachers that the checkpoint remembers
    teachers = {VARIABLE: os.pathsep.join(map(str, folders))} if folders or VARIABLE in os.environ else {}
    return show_and_run(train, teachers)


def _refuse_seen(weights: Path, student: SimpleNamespace) -> None:
    """Starting weights must not have seen the validation cases of the student's fold.

    Raises:
        ValueError: they are of this dataset, and have seen them or may have.
    """
    fold, model = weights.parent.name, weights.parent.parent
    plans = model / "plans.json"
    seen = read_plans(plans)["dataset_name"] if plans.is_file() else ""
    if student.plans_manager.dataset_name not in (seen, source_of(seen)):
        print(f"Whether {weights} has seen the validation cases of fold {student.fold} is not known.")
    elif fold != f"fold_{student.fold}":
        raise BadInput(
            f"it has seen validation cases of fold {student.fold}. Start from fold_{student.fold} of that model, or "
            "train the student with -f all"
        )
    else:
        teaching_folds(model, student)  # refuses where there is none


def _begins_with_all_weights(args: argparse.Namespace, student: SimpleNamespace, teachers: list[Path]) -> bool:
    """Lay the starting weights where --c finds them; False where their network or their labels are not the student's.

    Raises:
        BadInput: the trainer cannot be set up.
    """
    dataset, weights = student.plans_manager.dataset_name, Path(args.pretrained_weights)
    description = _description(weights)
    if description is None or meaning(description) != meaning(student.dataset_json):
        is_of = "may be of" if description is None else "is of"
        print(f"{weights} {is_of} other labels or channels: nnU-Net takes its weights, and a new last layer")
        return False
    try:
        folder = begin(dataset, args.configuration, args.f, args.tr, args.p, weights, teachers)
    except OtherWeights:
        print(f"Not all weights of {args.pretrained_weights} fit: nnU-Net takes those that do, and a new last layer")
        return False
    print(f"The training begins with all weights of {args.pretrained_weights}, in {folder}")
    return True


def _description(weights: Path) -> dict | None:
    """The dataset.json of a checkpoint's model: beside its fold, or inside, where the file was copied alone."""
    file = weights.resolve().parent.parent / "dataset.json"
    if file.is_file():
        return read_dataset_json(file)
    try:
        return read_checkpoint(weights, mapped=True)["init_args"].get("dataset_json")
    except BadInput:  # reading it needs code, or it is damaged
        return None


def _unlabelled(student: SimpleNamespace) -> str:
    """How many images without labels the student will see.

    Raises:
        ValueError: there are some, but they do not fit the plans.
    """
    plans, configuration = student.plans_manager, student.configuration_name
    images = "no images without labels"
    if (
        not why_not_unlabelled(plans, configuration)
        and read_record(unlabelled_folder(plans, configuration)) is not None
    ):
        images = f"{len(checked_cases(plans, configuration))} images without labels"
    return images + ", and the ignored voxels of its training cases" * ("ignore" in student.dataset_json["labels"])
