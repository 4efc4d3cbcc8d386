"""Let a finished model label images, and make a dataset of these and the labelled cases, for nnU-Net's own trainers.

  nnunet-skd pseudo-labels -d 80 -i FOLDER --teacher nnUNetTrainer__nnUNetPlans__2d -t 180

FOLDER holds images in nnU-Net's naming, one file for each channel: CASE_0000.png, CASE_0001.png. The model predicts
them, mirrored as nnUNetv2_predict does, and Dataset180_NAME_pseudo is made of the labelled cases of dataset 80 and
these images with the predictions as labels. It gets the plans and the fingerprint of dataset 80, and is preprocessed.
Dataset 80 stays as it is: images are linked, labels are copied. Each of nnU-Net's commands is printed before it runs.

A pseudo-label teaches the model's errors too. A class that the model found in no image is named at the end. Where the
model mirrors, it predicts a second time without mirroring, and the cases whose two predictions agree least are named,
too, and drawn in look_first.png, in the new dataset's folder. pseudo_labels.csv has the Dice of all. You may correct
labels in its labelsTr: repeat the command then, which preprocesses again and predicts nothing.

The last line is yours to run. It trains on the new dataset: nnUNetTrainer_250epochs, a quarter of nnU-Net's 1000
epochs, from the model's weights; or a whole training from scratch where these are another network's, or have seen
images that were preprocessed otherwise. After nnU-Net's trainers without mirroring it is
nnUNetTrainer_250epochs_NoMirroring, after any other that is not ours its variant of 250 epochs (NAME_250epochs), and
where there is none the same one again. With -tr you choose.

The weights lie in nnUNet_results as a checkpoint from before the first epoch, which --c continues: the last layer is
kept, which nnU-Net's -pretrained_weights would make anew. A training from scratch has --c, too, so that the same line
goes on after a stop.

The model is a folder that nnUNetv2_train wrote, or its name in $nnUNet_results/DATASET, of any trainer, plans and
configuration with the same labels and channels. Its folds predict together. In a second round it is the model that was
trained on Dataset180; -d and -i stay, and -t is a new number.

The training's fold is -f. Fold all (the default): every finished fold of the model labels. Fold 2: only its fold 2
does, as every other has seen the validation cases of fold 2; these stay the validation cases.

A run that was stopped goes on when it is started again. What is complete is left alone: for other images, labels,
splits or plans, or a model that was trained since, choose another number. Refused by name, before anything is written:
what 'nnunet-skd unlabelled' refuses, a model with other labels or channels, and a number that another dataset has.
"""

import argparse
import shlex
from pathlib import Path

from nnunet_skd.messages import listed
from nnunet_skd.model_checks import absolute
from nnunet_skd.model_folds import teaching_folds
from nnunet_skd.plans_file import plans_file_name
from nnunet_skd.tools.beginning import OtherWeights, begin, was_trained
from nnunet_skd.tools.cases import Cases
from nnunet_skd.tools.commands import CommandFailed, show_and_run
from nnunet_skd.tools.devices import find_device
from nnunet_skd.tools.errors import BadInput, as_bad_input
from nnunet_skd.tools.files import require_writable
from nnunet_skd.tools.lock import one_run_at_a_time
from nnunet_skd.tools.nnunet_folders import dataset_name, require_variable
from nnunet_skd.tools.nnunet_json import read_plans
from nnunet_skd.tools.parallel import require_processes
from nnunet_skd.tools.pseudo_labels.labelled_cases import LabelledCases
from nnunet_skd.tools.pseudo_labels.model import SHORT, LabellingModel, name_parts
from nnunet_skd.tools.pseudo_labels.new_dataset import NewDataset, new_name, require_free_number
from nnunet_skd.tools.pseudo_labels.second_look import look_again, what_to_look_at
from nnunet_skd.tools.teaching import describe_student, model_folder
from nnunet_skd.tools.trainers import look_up
from nnunet_skd.tools.unlabelled.checks import cases_of_folder, check_contents
from nnunet_skd.tools.unlabelled.dataset import open_dataset, require_preprocessing
from nnunet_skd.unlabelled_data import preprocessing, why_not_unlabelled

GOES_ON = "The same command goes on from here."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", required=True, metavar="DATASET", help="id or name of the dataset with the labels")
    parser.add_argument("-i", required=True, type=Path, metavar="FOLDER", help="folder with images in nnU-Net's naming")
    parser.add_argument("--teacher", required=True, metavar="MODEL", help="model folder, or its name")
    parser.add_argument("-t", required=True, type=int, metavar="NUMBER", help="id of the new dataset, 1 to 999")
    parser.add_argument("-f", default="all", metavar="FOLD", help="fold of the new training (default: %(default)s)")
    parser.add_argument("-c", metavar="CONFIGURATION", help="configuration of the new training (default: the model's)")
    parser.add_argument("-p", metavar="PLANS", help="plans identifier (default: the model's)")
    parser.add_argument("-tr", metavar="TRAINER", help="trainer of the new training (default: as above)")
    parser.add_argument("-device", choices=("cuda", "cpu", "mps"), default="cuda", help="default: %(default)s")
    parser.add_argument("-np", type=int, metavar="N", help="processes (default: as nnU-Net's commands)")


def run(args: argparse.Namespace) -> None:
    require_processes(args.np)
    _, plans_name, configuration = name_parts(absolute(args.teacher))
    configuration = args.c or configuration
    folder = model_folder(args.teacher, dataset_name(args.d))
    plans_name = args.p or _plans_file(folder, dataset_name(args.d), plans_name, configuration)
    dataset = open_dataset(args.d, plans_name)
    student = describe_student(args.d, configuration, args.f, SHORT, plans_name)
    require_preprocessing(dataset.plans, configuration)
    if why_not := why_not_unlabelled(dataset.plans, configuration):
        raise BadInput(why_not)
    with as_bad_input():
        folds = teaching_folds(folder, student)
    if args.f != "all" and dataset.plans.get_configuration(configuration).next_stage_names:
        print(f"The cascade's second stage needs predictions of all cases: of -f all, not of -f {args.f}.")
    model = LabellingModel(folder, folds, dataset)
    differ = model.differences(dataset.plans, configuration)
    trainer, weights = model.second_training(from_scratch=bool(differ))
    trainer = args.tr or trainer
    look_up(trainer)
    with one_run_at_a_time(require_variable("nnUNet_raw") / f".{new_name(dataset.plans.dataset_name, args.t)}"):
        require_free_number(dataset.plans.dataset_name, args.t)
        labelled = LabelledCases(dataset, configuration, args.f)
        cases = cases_of_folder(args.i, dataset, [configuration])
        contents = check_contents(cases, {}, args.i, dataset, args.np or 4)
        made_of = {
            "dataset": dataset.plans.dataset_name,
            "plans": plans_name,
            "configuration": configuration,
            "fold": args.f,
            "model": str(folder),
            "checkpoints": model.hashes(),
            "images": {case: [image.hash, *image.spacing] for case, image in contents.items()},
            "labelled cases": labelled.hashes(),
            "validation cases": labelled.validation,
            "preprocessing": preprocessing(dataset.plans, configuration),
        }
        new = NewDataset(dataset, args.t, made_of)
        if not new.is_complete:
            for root in ("nnUNet_preprocessed", "nnUNet_results"):  # they are needed after hours of prediction
                require_writable(require_variable(root))
            _make(new, cases, labelled, model, args)
        why = f"{folder} and {configuration} of {dataset.plans.dataset_name} differ in {', '.join(differ)}"
        if weights is not None:
            try:
                _begin(new, args.f, trainer, weights)
            except OtherWeights:
                if not args.tr:
                    raise
                weights, why = None, f"{trainer} has another network than {folder}"
        if weights is None:
            print(f"\nThe training begins from scratch: {why}. (At first nnU-Net warns that --c finds nothing.)")
    train = ["nnUNetv2_train", str(new.number), configuration, args.f]
    train += ["-tr", trainer] * (trainer != "nnUNetTrainer") + ["--c"]
    train += ["-p", plans_name] * (plans_name != "nnUNetPlans") + ["-device", args.device] * (args.device != "cuda")
    for doubt in what_to_look_at(new.folder):
        print(f"\n{doubt}")
    print(f"\n{new.name}: {len(labelled.files)} labelled cases, {len(cases)} with pseudo-labels. To train on it:")
    print(f"  {shlex.join(train)}")


def _plans_file(folder: Path, dataset: str, plans_name: str, configuration: str) -> str:
    """The plans that the model was trained with: of several files with one plans_name inside, the one like them."""
    plans = read_plans(folder / "plans.json")
    if plans["plans_name"] != plans_name:
        return plans_name
    return plans_file_name(require_variable("nnUNet_preprocessed") / dataset, plans, configuration)


def _begin(new: NewDataset, fold: str, trainer: str, weights: Path) -> None:
    """Say where the beginning lies, so that nobody looks for it on another machine or under another trainer's name."""
    folder = begin(new.name, new.made_of["configuration"], fold, trainer, new.made_of["plans"], weights)
    if was_trained(folder):
        print(f"\n{folder} holds a training already, which --c continues. To begin anew, remove it and repeat this.")
    else:
        print(f"\nThe training begins with all weights of {weights}. They lie in {folder}, where --c finds them.")


def _make(
    new: NewDataset, cases: Cases, labelled: LabelledCases, model: LabellingModel, args: argparse.Namespace
) -> None:
    steps = [(new.without_label, new.predicted, [])]
    unmirrored = new.unmirrored if not new.was_complete and model.mirrors else None
    if unmirrored:
        steps.append((new.without_second_prediction, unmirrored, ["--disable_tta"]))
    if any(missing(cases) for missing, *_ in steps):
        find_device(args.device)
    new.begin(cases, args.np or 4)
    for missing, output, options in steps:
        if waiting := missing(cases):
            new.link_waiting({case: cases[case] for case in waiting})
            processes = ["-npp", args.np, "-nps", args.np] if args.np else []
            _run("nnUNetv2_predict_from_modelfolder", "-i", new.waiting, "-o", output, "-m", model.folder,
                 "-f", *model.folds, "-device", args.device, *processes, *options,
                 also=f"If it fails at the same image again, use fewer processes (-np), or take that image out of "
                      f"{args.i}.")  # fmt: skip
            new.drop_unreadable(output, waiting, args.np or 4)
        if left := missing(cases):
            raise CommandFailed(
                f"nnU-Net's prediction left out {listed(left)}, or could not write them to their end. If the disk of "
                f"{output} is full, make room. {GOES_ON}"
            )
    new.complete(cases, labelled)
    if not new.was_complete:
        look_again(cases, new.labels, unmirrored, new.source.description, new.folder, args.np or 4)
    options = ["-np", args.np] if args.np else []
    _run("nnUNetv2_preprocess", "-d", new.number, "-plans_name", new.made_of["plans"], "-c", *new.configurations,
         *options)  # fmt: skip
    new.finish()


def _run(*command: object, also: str = "") -> None:
    if status := show_and_run([str(word) for word in command]):
        message = f"{command[0]} ended with exit status {status}; its message is above. {GOES_ON} {also}"
        raise CommandFailed(message.rstrip())
