"""Let finished models label images, and make a dataset of these and the labelled cases: self-training by nnU-Net alone.

  nnunet-skd pseudo-labels -d 80 -i FOLDER --teacher nnUNetTrainer__nnUNetPlans__2d -t 180

FOLDER holds images in nnU-Net's naming, one file for each channel: CASE_0000.png, CASE_0001.png. The model predicts
them, mirrored as nnUNetv2_predict does. Dataset180_NAME_pseudo then names the labelled cases of dataset 80 and these
images, with the predictions as labels; no image is copied. It gets the plans and the fingerprint of dataset 80, and is
preprocessed. Dataset 80 stays as it is. Each of nnU-Net's commands is printed before it runs, and at the end the one
that trains on the new dataset, from the model's weights.

A model is a folder that nnUNetv2_train wrote, or its name in $nnUNet_results/DATASET, of any trainer, configuration and
plans. Its folds are an ensemble; so are several models, which also takes disk space for their probabilities, until
they are joined.

The training's fold is -f. Fold all (the default): every finished fold of the models labels. Fold 2: only their fold 2
does, as every other has seen the validation cases of fold 2; in the new dataset each fold is this one, with the
labelled validation cases of dataset 80.

A run that was stopped goes on when it is started again. Later, it labels images that are new or newer than their
labels. Refused by name, before anything is written: what 'nnunet-skd unlabelled' refuses, models with other labels or
channels, and a number that another dataset has.
"""

import argparse
import shlex
import shutil
import sys
from pathlib import Path

from nnunet_skd.model_checks import CHECKPOINT, teaching_folds
from nnunet_skd.tools.commands import show_and_run
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.pseudo_labels.new_dataset import NewDataset
from nnunet_skd.tools.pseudo_labels.teachers import Teacher, check_teacher
from nnunet_skd.tools.teaching import describe_student, model_folder
from nnunet_skd.tools.unlabelled.checks import Cases, cases_of_folder, check_contents, parallel_reader
from nnunet_skd.tools.unlabelled.dataset import Dataset, open_dataset, require_preprocessing

TRAINER = "nnUNetTrainer_250epochs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", required=True, metavar="DATASET", help="id or name of the dataset with the labels")
    parser.add_argument("-i", required=True, type=Path, metavar="FOLDER", help="folder with images in nnU-Net's naming")
    parser.add_argument("--teacher", nargs="+", required=True, metavar="MODEL", help="model folders, or their names")
    parser.add_argument("-t", required=True, type=int, metavar="NUMBER", help="id of the new dataset, 1 to 999")
    parser.add_argument("-f", default="all", metavar="FOLD", help="to be trained (default: %(default)s)")
    parser.add_argument("-c", metavar="CONFIGURATION", help="to be trained (default: that of the first model)")
    parser.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="plans identifier (default: %(default)s)")
    parser.add_argument("-device", choices=("cuda", "cpu", "mps"), default="cuda", help="default: %(default)s")
    parser.add_argument("-np", type=int, metavar="N", help="processes (default: as nnU-Net's commands)")


class CommandFailed(Exception):
    """One of nnU-Net's commands failed, after it printed why."""


def run(args: argparse.Namespace) -> int:
    dataset = open_dataset(args.d, args.p)
    name = dataset.plans.dataset_name
    folders = [model_folder(model, name) for model in args.teacher]
    configuration = args.c or folders[0].name.split("__")[-1]
    student = describe_student(args.d, configuration, args.f, TRAINER, args.p)
    require_preprocessing(dataset.plans, configuration)
    if args.np is not None and args.np < 1:
        raise BadInput(f"-np is {args.np}, but has to be at least 1")
    try:
        teachers = [Teacher(folder, teaching_folds(folder, student)) for folder in folders]
    except ValueError as error:
        raise BadInput(str(error)) from error
    for teacher in teachers:
        check_teacher(teacher, dataset)
    target = NewDataset.beside(dataset, args.t, args.f, teachers, args.i)
    cases = cases_of_folder(args.i, dataset)
    check_contents(cases, {}, args.i, dataset, parallel_reader(dataset.plans.image_reader_writer_class, args.np or 4))

    target.begin()
    processes = ["-np", str(args.np)] if args.np else []
    try:
        label(cases, dataset, teachers, target, args.device, args.np)
        target.write(cases)
        _run("nnUNetv2_move_plans_between_datasets", "-s", name, "-t", target.name, "-sp", args.p, "-tp", args.p)
        _run("nnUNetv2_preprocess", "-d", target.number, "-plans_name", args.p, "-c", configuration, *processes)
    except CommandFailed as error:
        print(f"\nnnunet-skd pseudo-labels: {error} The same command goes on from here.", file=sys.stderr)
        return 1
    print(f"\n{target.name}: {target.labelled} labelled cases, {len(cases)} with pseudo-labels. To train on it:")
    print(f"  {shlex.join(training(target, configuration, args, teachers[0]))}")
    return 0


def label(
    cases: Cases, dataset: Dataset, teachers: list[Teacher], target: NewDataset, device: str, processes: int | None
) -> None:
    """Predict what has no label yet.

    Raises:
        CommandFailed: nnU-Net's prediction failed, or left a case out.
    """
    target.drop_old_labels(target.labels, cases, teachers)
    if not target.without_label(cases):
        return
    folder = str(target.images)
    options = ["--continue_prediction", "-device", device]
    options += ["-npp", str(processes), "-nps", str(processes)] if processes else []
    outputs = [target.labels]
    if len(teachers) > 1:
        outputs = [target.predicted / f"{i}_{teacher.folder.name}" for i, teacher in enumerate(teachers)]
        options.append("--save_probabilities")
    for teacher, output in zip(teachers, outputs, strict=True):
        target.drop_old_labels(output, cases, teachers)
        model = ["-m", str(teacher.folder), "-f", *teacher.folds]
        _run("nnUNetv2_predict_from_modelfolder", "-i", folder, "-o", str(output), *model, *options)
    if len(teachers) > 1:
        count = ["-np", str(processes)] if processes else []
        _run("nnUNetv2_ensemble", "-i", *map(str, outputs), "-o", str(target.labels), *count)
        shutil.rmtree(target.predicted)
    if left := target.without_label(cases):
        raise CommandFailed(f"nnU-Net's prediction left out {', '.join(left[:8])}.")


def training(target: NewDataset, configuration: str, args: argparse.Namespace, teacher: Teacher) -> list[str]:
    """The command that trains on the new dataset, from the first model's weights where its network is the same."""
    command = ["nnUNetv2_train", str(target.number), configuration, args.f, "-tr", TRAINER]
    command += ["-p", args.p] * (args.p != "nnUNetPlans") + ["-device", args.device] * (args.device != "cuda")
    if teacher.folder.name.split("__")[1:] == [args.p, configuration]:
        command += ["-pretrained_weights", str(teacher.folder / f"fold_{teacher.folds[0]}" / CHECKPOINT)]
    return command


def _run(*command: object) -> None:
    if status := show_and_run([str(word) for word in command]):
        raise CommandFailed(f"{command[0]} ended with exit status {status}; its message is above.")
