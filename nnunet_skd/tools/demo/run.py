"""The demo from its data to its picture, step by step."""

import shlex
import time
from pathlib import Path

import pandas as pd
import torch
from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id

from nnunet_skd.tools.cases import reader_class, segmented_cases
from nnunet_skd.tools.demo.linked_dataset import link_dataset
from nnunet_skd.tools.demo.paired_folders import pair_folders
from nnunet_skd.tools.demo.phantoms import write_partly_labelled_phantoms, write_phantom_dataset
from nnunet_skd.tools.demo.picture import draw_predictions
from nnunet_skd.tools.demo.processes import Steps, check_trainer, cpu_cores, demo_environment, say
from nnunet_skd.tools.demo.state import STATE, UNLABELLED_IMAGES, open_state
from nnunet_skd.tools.demo.table import DEMO_METRICS, format_table
from nnunet_skd.tools.demo.trainings import Trainings
from nnunet_skd.tools.devices import find_device
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.evaluate.folders import evaluate_folders
from nnunet_skd.tools.files import require_folder, write_file
from nnunet_skd.tools.images import read_segmentation
from nnunet_skd.tools.nnunet_json import read_dataset_json
from nnunet_skd.tools.parallel import require_processes
from nnunet_skd.tools.pseudo_labels.new_dataset import new_name

TRAINER = "nnUNetTrainerDSKD_5epochs"
# with --unlabelled
UNLABELLED_TRAINER = "nnUNetTrainer_5epochs"
LABELLED = 4  # of the phantoms' training cases
LABELLED_ONLY, WITH_PSEUDO_LABELS = "labelled only", "with pseudo-labels"
PHANTOM_IDS = {2: 901, 3: 902}
PHANTOM_CASES = {  # 3D: smaller than the default size, at which a sliding window takes a minute per case on two cores
    2: {"num_train": 16, "num_test": 8},
    3: {"num_train": 12, "num_test": 4, "size": (28, 72, 72)},
}


def run_demo(
    out: str | Path,
    *,
    dim: int = 2,
    data: str | Path | None = None,
    images: str | Path | None = None,
    masks: str | Path | None = None,
    unlabelled: bool = False,
    trainer: str = TRAINER,
    device: str | None = None,
    num_processes: int | None = None,
    overwrite: bool = False,
) -> pd.DataFrame:
    """Plan, preprocess, train, predict the test cases, measure them and draw demo.png.

    Args:
        out: folder for everything; a finished or interrupted demo in it with the same arguments is continued.
        dim: of the phantoms, 2 or 3; ignored with data or images.
        data: DatasetXXX_Name in nnU-Net's raw format, instead of phantoms.
        images, masks: two folders, paired by name, instead of phantoms.
        unlabelled: phantoms of which few are labelled; nnUNetTrainer on these, then a second training of its network
            with pseudo-labels for the others. ``trainer`` is not used.
        trainer: what ``nnUNetv2_train -tr`` takes.
        device: cpu, cuda or mps; None is cuda where there is one, else cpu. Other than cuda: the preset cpu_demo.
        num_processes: for preprocessing; None: the CPU cores this process may use, at most 8.
        overwrite: remove what an earlier demo left in ``out`` first.

    Returns:
        One row per training, case and label, one column per metric.

    Raises:
        BadInput: unusable data, an unknown trainer, no such device, or ``out`` holds something else.
        CommandFailed: one of nnU-Net's commands failed.
    """
    started = time.monotonic()
    source = _source(dim, data, images, masks, unlabelled)
    if unlabelled and trainer != TRAINER:
        raise BadInput(f"--unlabelled trains with {UNLABELLED_TRAINER}: leave out -tr.")
    trainer = UNLABELLED_TRAINER if unlabelled else trainer
    require_processes(num_processes)
    out = Path(out).absolute()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    num_processes = num_processes or min(8, cpu_cores())
    environment = demo_environment(out, device, num_processes)
    if overwrite or not (out / STATE).is_file():
        # before an earlier demo is removed and before hours of preprocessing
        find_device(device)
        check_trainer(trainer, environment)
    state = open_state(out, source | {"trainer": trainer, "device": device}, overwrite)

    say("Data")
    if not state.finished("data"):
        try:
            state.set("data", _make_data(source, out))
        except BaseException:
            state.give_up()
            raise
    dataset = state.content["data"]
    raw = out / "nnUNet_raw" / dataset
    dataset_json = read_dataset_json(raw / "dataset.json")
    number = str(convert_dataset_name_to_id(dataset))
    num_test = len(_test_cases(raw, dataset_json))
    print(f"{dataset}: {dataset_json.get('numTraining', '?')} training cases, {num_test} test cases in {raw}")

    print("\nThe commands below use these variables (export them to repeat a command by hand):")
    for name in sorted(n for n in environment if n.startswith("nnUNet_")):
        print(f"  export {name}={shlex.quote(environment[name])}")

    configuration = "2d" if _is_2d(raw, dataset_json) else "3d_fullres"
    processes = str(num_processes)
    step = Steps(out, state, environment)
    step(
        "plan",
        "Fingerprint, plans, preprocessing",
        ["nnUNetv2_plan_and_preprocess", "-d", number, "-c", configuration, "-np", processes, "-npfp", processes]
        + ["--verify_dataset_integrity"],
    )
    if device != "cuda":
        step(
            "compact",
            "A network small enough for a CPU",
            ["nnunet-skd", "compact", "-d", number, "-c", configuration, "--preset", "cpu_demo"],
        )
        configuration += "_cpu_demo"

    trainings = Trainings(step, out, raw / "imagesTs", trainer, configuration, device)
    if unlabelled:
        _without_and_with_pseudo_labels(trainings, dataset, number, processes)
    else:
        trainings.add(trainer, dataset, fold="0")
    models, predictions = trainings.models, trainings.predictions

    say("Evaluation")
    table = _evaluate(raw / "labelsTs", predictions, dataset_json, out / "metrics.csv")
    draw_predictions(raw, predictions, table, out / "demo.png")
    print(format_table(table))
    if unlabelled:
        print("\nThe second network is the first one, trained on for as long again: no comparison of equal trainings.")
    print(f"\nDone in {(time.monotonic() - started) / 60:.1f} min. Everything is in {out}")
    for name, where in (
        ("picture", out / "demo.png"),
        ("metrics", out / "metrics.csv"),
        ("predictions", out / "predictions"),
        *(("model, training log, curves", model) for model in models.values()),
        ("plans, preprocessed data", out / "nnUNet_preprocessed" / dataset),
        ("images and labels", raw),
        ("output of each command", out / "logs"),
    ):
        print(f"  {name:28} {where}")
    return table


def _without_and_with_pseudo_labels(trainings: Trainings, dataset: str, number: str, processes: str) -> None:
    fold = "all"  # four cases are too few for nnU-Net's five folds
    model = trainings.add(LABELLED_ONLY, dataset, fold)
    images, added = trainings.out / UNLABELLED_IMAGES, int(number) + 10
    trainings.step(
        "pseudo_labels",
        f"Its labels for the images without labels, {images}",
        ["nnunet-skd", "pseudo-labels", "-d", number, "-i", str(images), "--teacher", str(model.parent)]
        + ["-t", str(added), "-tr", trainings.trainer, "-device", trainings.device, "-np", processes],
    )
    trainings.add(WITH_PSEUDO_LABELS, new_name(dataset, added), fold)


def _source(
    dim: int, data: str | Path | None, images: str | Path | None, masks: str | Path | None, unlabelled: bool
) -> dict[str, str]:
    """What the data come from, in words that the state file can hold."""
    if unlabelled and (data is not None or images is not None or masks is not None):
        raise BadInput(
            "--unlabelled shows its two trainings on phantoms, not on --data or --images. For your own images: "
            "'nnunet-skd pseudo-labels --help'."
        )
    if data is not None and (images is not None or masks is not None):
        raise BadInput("--data cannot be combined with --images and --masks. Give one or the other.")
    if (images is None) != (masks is None):
        raise BadInput("--images and --masks belong together. Give both folders.")
    for folder in (data, images, masks):
        if folder is not None:
            require_folder(folder)
    if data is not None:
        return {"data": str(Path(data).absolute())}
    if images is not None:
        return {"images": str(Path(images).absolute()), "masks": str(Path(masks).absolute())}
    return {"phantoms": f"{dim}D"} | ({"unlabelled": "yes"} if unlabelled else {})


def _make_data(source: dict[str, str], out: Path) -> str:
    """Draw, link or pair the data; returns the data set's name."""
    raw_folder = out / "nnUNet_raw"
    if "data" in source:
        return link_dataset(source["data"], raw_folder).name
    if "images" in source:
        return pair_folders(source["images"], source["masks"], raw_folder).name
    dim = int(source["phantoms"][0])
    if "unlabelled" in source:
        return write_partly_labelled_phantoms(
            raw_folder, out / UNLABELLED_IMAGES, PHANTOM_IDS[dim], LABELLED, dim=dim, **PHANTOM_CASES[dim]
        ).name
    return write_phantom_dataset(raw_folder, PHANTOM_IDS[dim], dim=dim, **PHANTOM_CASES[dim]).name


def _test_cases(raw: Path, dataset_json: dict) -> list[str]:
    return sorted(segmented_cases(raw / "labelsTs", dataset_json["file_ending"]))


def _is_2d(raw: Path, dataset_json: dict) -> bool:
    label = raw / "labelsTs" / (_test_cases(raw, dataset_json)[0] + dataset_json["file_ending"])
    return read_segmentation(reader_class(dataset_json, label), label)[0].shape[1] == 1


def _evaluate(references: Path, predictions: dict[str, Path], dataset_json: dict, path: Path) -> pd.DataFrame:
    """Measure the predictions, write them as CSV, return the table: trainer, case, label and one column per metric."""
    # One process: these metrics take little more time than reading the files, and starting processes takes seconds.
    tables = [
        evaluate_folders(references, folder, dataset_json, num_processes=1, metrics=DEMO_METRICS).assign(
            trainer=trainer
        )
        for trainer, folder in predictions.items()
    ]
    table = pd.concat(tables, ignore_index=True)
    write_file(path, lambda file: table.to_csv(file, index=False))
    return table
