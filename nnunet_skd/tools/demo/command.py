"""See a network train, predict and be measured: nnU-Net's real commands, one after the other.

Without arguments it draws phantom coronary angiograms and trains DSKD on them for five epochs, on a GPU with nnU-Net's
own plans, on a CPU with a small network (minutes, on two cores). Each command is printed before it runs, so that you
can repeat it on your own data. At the end stand a table (Dice, IoU, sensitivity, specificity, accuracy) and a picture
of image, truth and prediction side by side.

Everything is written to one folder (-o), with nnUNet_raw, nnUNet_preprocessed and nnUNet_results of its own: your own
nnU-Net folders are neither read nor written, and nnunetv2 stays as it is. Called again with the same arguments, the
demo goes on where it stopped. Five epochs show that everything works; they are too few to judge a method.

your own data, instead of phantoms:
  --data DIR                DatasetXXX_Name in nnU-Net's raw format. Test cases: imagesTs with labelsTs; where there
                            are none, a fifth of the training cases (at most 8) is held out.
  --images DIR --masks DIR  2D or 3D images and their masks, paired by name (a.png with a.png or a_mask.png), grey or
                            RGB, in a format that nnU-Net reads: .png .bmp .tif .nii.gz .nrrd .mha ... but not .jpg.
                            Mask values 0, 1, .. n, or 0 and 255. For CT or several channels use --data.
Images are linked, never copied or changed.

examples:
  nnunet-skd demo
  nnunet-skd demo --dim 3 -o demo3d
  nnunet-skd demo --data Dataset080_CoronaryXA -tr nnUNetTrainerDSKD_20epochs -o demo080
  nnunet-skd demo --images photos --masks annotations -o demo_mine

exit status: 0 done, 1 one of the commands failed (its name and log file are shown), 2 unusable input
"""

import argparse
import codecs
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pandas as pd

from nnunet_skd.tools.demo.data import link_dataset, pair_folders
from nnunet_skd.tools.demo.phantoms import write_phantom_dataset
from nnunet_skd.tools.demo.report import METRICS, draw_cases, format_table, reader_of
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.evaluate.command import evaluate_folders
from nnunet_skd.tools.install.discovery import trainers_folder

TRAINER = "nnUNetTrainerDSKD_5epochs"
PHANTOM_IDS = {2: 901, 3: 902}
PHANTOM_CASES = {  # 3D smaller than the phantoms' own size: a sliding window takes a minute per such case on two cores
    2: {"num_train": 16, "num_test": 8},
    3: {"num_train": 12, "num_test": 4, "size": (28, 72, 72)},
}
NNUNET_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
STATE = "demo.json"
MADE_HERE = (*NNUNET_FOLDERS, "predictions", "logs", "metrics.csv", "demo.png", STATE)


class CommandFailed(RuntimeError):
    """A command that the demo started ended with an error. The message names it, its log and what to do."""


def run_demo(
    out,
    *,
    dim: int = 2,
    data=None,
    images=None,
    masks=None,
    trainer: str = TRAINER,
    device: str | None = None,
    num_processes: int | None = None,
    overwrite: bool = False,
) -> pd.DataFrame:
    """Plan, preprocess, train fold 0, predict the test cases, measure them and draw demo.png.

    Args:
        out: folder for everything; a finished or interrupted demo of the same arguments in it is continued.
        dim: of the phantoms, 2 or 3; ignored with data or images.
        data: DatasetXXX_Name in nnU-Net's raw format, instead of phantoms.
        images, masks: two folders, paired by name, instead of phantoms.
        trainer: what ``nnUNetv2_train -tr`` takes.
        device: cpu, cuda or mps; None is cuda where there is one, else cpu. Other than cuda: the preset cpu_demo.
        num_processes: for preprocessing; None: the CPU cores this process may use, at most 8.
        overwrite: remove what an earlier demo left in ``out`` first.

    Returns:
        One row per case and label, one column per metric.

    Raises:
        BadInput: unusable data, an unknown trainer, or ``out`` holds something else.
        CommandFailed: one of nnU-Net's commands did.
    """
    started = time.monotonic()
    source = _source(dim, data, images, masks)
    if num_processes is not None and num_processes < 1:
        raise BadInput(f"the number of processes (-np) must be at least 1, not {num_processes}.")
    out = Path(out).absolute()
    device = device or _best_device()
    num_processes = num_processes or min(8, _cores())
    environment = _environment(out, device, num_processes)
    if overwrite or not (out / STATE).is_file():
        _check_trainer(trainer, environment)  # before an earlier demo is removed and before hours of preprocessing
    state = _open(out, source | {"trainer": trainer, "device": device}, overwrite)

    _say("Data")
    if not state.finished("data"):
        state.set("data", _make_data(source, out / "nnUNet_raw"))
    dataset = state.content["data"]
    raw = out / "nnUNet_raw" / dataset
    dataset_json = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    number = str(int(dataset[len("Dataset") :].split("_")[0]))
    num_test = len(_cases(raw, dataset_json))
    print(f"{dataset}: {dataset_json['numTraining']} training cases, {num_test} test cases in {raw}")

    print("\nThe commands below run with these variables (export them to repeat a command by hand):")
    for name in sorted(n for n in environment if n.startswith("nnUNet_")):
        print(f"  export {name}={shlex.quote(environment[name])}")

    configuration = "2d" if _is_2d(raw, dataset_json) else "3d_fullres"
    processes = str(num_processes)
    step = _Steps(out, state, environment)
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

    model = out / "nnUNet_results" / dataset / f"{trainer}__nnUNetPlans__{configuration}"
    train = ["nnUNetv2_train", number, configuration, "0", "-tr", trainer, "-device", device]
    if not state.finished("train") and any((model / "fold_0").glob("checkpoint_*.pth")):
        train.append("--c")  # interrupted: goes on with the last checkpoint
    step("train", "Training, fold 0 of 5 (nnU-Net reports after each epoch of 250 steps)", train)

    predictions = out / "predictions"
    step(
        "predict",
        "Prediction of the test cases",
        ["nnUNetv2_predict", "-i", str(raw / "imagesTs"), "-o", str(predictions), "-d", number, "-c", configuration]
        + ["-tr", trainer, "-f", "0", "-device", device, "-npp", "1", "-nps", "1"],
    )

    _say("Evaluation")
    table = _evaluate(raw, predictions, out / "metrics.csv")
    draw_cases(raw, predictions, table, out / "demo.png")
    print(format_table(table))
    print(f"\nDone in {(time.monotonic() - started) / 60:.1f} min. Everything is in {out}")
    for name, where in (
        ("picture", out / "demo.png"),
        ("metrics", out / "metrics.csv"),
        ("predictions", predictions),
        ("model, training log, curves", model / "fold_0"),
        ("plans, preprocessed data", out / "nnUNet_preprocessed" / dataset),
        ("images and labels", raw),
        ("output of each command", out / "logs"),
    ):
        print(f"  {name:28} {where}")
    return table


# ------------------------------------------------------------------------------------------- what is done already


class _State:
    """The small file that says what the demo was asked and which steps are done."""

    def __init__(self, path, content):
        self.path, self.content = path, content

    def finished(self, step):
        return bool(self.content.get(step))

    def set(self, key, value):
        self.content[key] = value
        unfinished = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        unfinished.write_text(json.dumps(self.content, indent=4), encoding="utf-8")
        os.replace(unfinished, self.path)


def _open(out, arguments, overwrite):
    """The state of the demo in ``out``: a new one, or the one there if it was asked the same."""
    path = out / STATE
    if out.exists() and not out.is_dir():
        raise BadInput(f"{out} is a file. Choose another folder with -o.")
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        before = content["arguments"]
        if overwrite or "data" not in content:  # without data nothing was made that could be lost
            for name in MADE_HERE:
                target = out / name
                shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        elif before == arguments:
            print(f"Continuing the demo in {out}, on the data as first taken. --overwrite starts anew.")
            return _State(path, content)
        else:
            keys = sorted(k for k in before | arguments if before.get(k) != arguments.get(k))
            changes = ", ".join(f"{k} {before.get(k)} there and {arguments.get(k)} now" for k in keys)
            raise BadInput(
                f"{out} holds a demo of other arguments ({changes}). Choose another folder with -o, or --overwrite it."
            )
    elif out.is_dir() and any(out.iterdir()):
        raise BadInput(
            f"{out} is not empty and holds no demo. Nothing in it was touched; choose another folder with -o."
        )
    out.mkdir(parents=True, exist_ok=True)
    state = _State(path, {})
    state.set("arguments", arguments)
    return state


# ----------------------------------------------------------------------------------------------------- the data


def _source(dim, data, images, masks):
    if data is not None and (images is not None or masks is not None):
        raise BadInput("--data and --images/--masks exclude each other. Give one of the two.")
    if (images is None) != (masks is None):
        raise BadInput("--images and --masks belong together. Give both folders.")
    for folder in (data, images, masks):
        if folder is not None and not Path(folder).is_dir():
            raise BadInput(f"{folder} is no folder. Check the path.")
    if data is not None:
        return {"data": str(Path(data).absolute())}
    if images is not None:
        return {"images": str(Path(images).absolute()), "masks": str(Path(masks).absolute())}
    if dim not in PHANTOM_IDS:
        raise BadInput(f"dim must be 2 or 3, not {dim}.")
    return {"phantoms": f"{dim}D"}


def _make_data(source, raw_folder):
    """Draw, link or pair the data; returns the data set's name."""
    if "data" in source:
        return link_dataset(source["data"], raw_folder).name
    if "images" in source:
        return pair_folders(source["images"], source["masks"], raw_folder).name
    dim = int(source["phantoms"][0])
    return write_phantom_dataset(raw_folder, PHANTOM_IDS[dim], dim=dim, **PHANTOM_CASES[dim]).name


def _cases(raw, dataset_json):
    ending = dataset_json["file_ending"]
    return sorted(f.name[: -len(ending)] for f in (raw / "labelsTs").iterdir() if f.name.endswith(ending))


def _is_2d(raw, dataset_json):
    label = raw / "labelsTs" / (_cases(raw, dataset_json)[0] + dataset_json["file_ending"])
    return reader_of(dataset_json, label).read_seg(str(label))[0].shape[1] == 1


# -------------------------------------------------------------------------------------------------- the commands


def _say(title):
    print(f"\n=== {title} ===", flush=True)


def _best_device():
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _environment(out, device, num_processes):
    """The environment of the commands: folders of the demo's own, and the trainers of this package."""
    environment = dict(os.environ)
    environment |= {name: str(out / name) for name in NNUNET_FOLDERS}
    others = [e for e in environment.get("nnUNet_extTrainer", "").split(os.pathsep) if e]
    environment["nnUNet_extTrainer"] = os.pathsep.join(dict.fromkeys([str(trainers_folder()), *others]))
    environment["nnUNet_def_n_proc"] = str(num_processes)
    if environment.get("nnUNet_n_proc_DA", "0") == "0":  # with 0 nnU-Net's planner fails (2.8.1)
        environment["nnUNet_n_proc_DA"] = str(min(12, _cores()) if device == "cuda" else max(1, min(4, _cores() - 1)))
    if device != "cuda":
        environment["nnUNet_compile"] = "f"  # a few small epochs do not earn back the compilation
    environment["PYTHONUNBUFFERED"] = "1"  # progress at once, not in blocks
    return environment


def _program(name):
    """The command of this Python's environment, whatever PATH holds."""
    folders = [
        Path(sys.executable).parent,
        sysconfig.get_path("scripts"),
        sysconfig.get_path("scripts", _user_scheme()),
    ]
    found = shutil.which(name, path=os.pathsep.join(str(f) for f in folders))
    if found is None:
        raise BadInput(f"{name} is not in {folders[0]}. Install it there: {sys.executable} -m pip install nnunet_skd")
    return found


def _user_scheme():
    return sysconfig.get_preferred_scheme("user")


def _check_trainer(trainer, environment):
    """Look the trainer up as nnU-Net will."""
    print(f"Looking for {trainer} ...", flush=True)
    look_up = (
        "import sys; from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find;"
        "find(sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", look_up, trainer], env=environment, capture_output=True, text=True)
    if done.returncode:
        cause = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit status {done.returncode}"
        raise BadInput(
            f"nnU-Net does not find or cannot load the trainer {trainer}: {cause}\n'nnunet-skd doctor' tells more."
        )


class _Steps:
    """Runs commands one after the other: shows each, streams and logs its output, remembers that it is done."""

    def __init__(self, out, state, environment):
        self.logs, self.state, self.environment = out / "logs", state, environment
        self.logs.mkdir(exist_ok=True)

    def __call__(self, name, title, command):
        _say(title)
        print(f"$ {shlex.join(command)}", flush=True)
        if self.state.finished(name):
            print("done before, skipped")
            return
        log = self.logs / f"{name}.log"
        started = time.monotonic()
        status = _stream([_program(command[0]), *command[1:]], log, self.environment)
        if status:
            raise CommandFailed(
                f"this command ended with {_status(status)}:\n  {shlex.join(command)}\n"
                f"Its output is in {log}; the cause stands near its end. When it is mended, call the same demo again:"
                f" it goes on with this step. 'nnunet-skd doctor' checks the installation."
            )
        self.state.set(name, True)
        print(f"({time.monotonic() - started:.0f} s, log: {log})")


def _status(status):
    if status == -signal.SIGTERM or status >= 0:
        return f"exit status {status}"
    return f"signal {-status} (killed from outside; signal 9 mostly means that memory ran out: close other programs)"


def _stream(command, log, environment):
    """Run a command; show and log what it prints while it prints it. Returns its exit status.

    It gets a session of its own, so that stopping the demo stops the command's worker processes, too.
    """
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    with (
        open(log, "ab") as record,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        record.write(f"$ {shlex.join(command)}\n".encode())
        try:
            while chunk := process.stdout.read1():
                record.write(chunk)
                record.flush()
                sys.stdout.write(decode(chunk))
                sys.stdout.flush()
            return process.wait()
        except BaseException:
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            raise


# ----------------------------------------------------------------------------------------------- the evaluation


def _evaluate(raw, predictions, path):
    """Measure the predictions, write them as CSV, return the table: ``case``, ``label`` and one column per metric."""
    # One process: these metrics cost little more than reading the files, starting others costs seconds.
    table = evaluate_folders(raw / "labelsTs", predictions, raw / "dataset.json", num_processes=1, metrics=METRICS)
    unfinished = path.with_name(f".{path.name}")
    table.to_csv(unfinished, index=False)
    os.replace(unfinished, path)
    return table


# ---------------------------------------------------------------------------------------------- the command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", default="demo", metavar="OUT", help="folder for everything (default: ./%(default)s)")
    parser.add_argument("--dim", type=int, choices=(2, 3), default=2, help="2D angiograms or 3D CT (default: 2)")
    parser.add_argument("--data", metavar="DIR", help="a data set in nnU-Net's raw format instead of phantoms")
    parser.add_argument("--images", metavar="DIR", help="a folder of images instead of phantoms; needs --masks")
    parser.add_argument("--masks", metavar="DIR", help="the masks of --images")
    parser.add_argument("-tr", "--trainer", default=TRAINER, help="trainer (default: %(default)s)")
    parser.add_argument("-device", choices=("cpu", "cuda", "mps"), help="default: cuda where there is a GPU, else cpu")
    parser.add_argument(
        "-np", type=int, metavar="N", help="processes for preprocessing (default: the CPU cores, at most 8)"
    )
    parser.add_argument("--overwrite", action="store_true", help="remove an earlier demo's files in OUT and start anew")


def run(args: argparse.Namespace) -> int:
    # As Ctrl-C: the command that runs is ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run_demo(
            args.o,
            dim=args.dim,
            data=args.data,
            images=args.images,
            masks=args.masks,
            trainer=args.trainer,
            device=args.device,
            num_processes=args.np,
            overwrite=args.overwrite,
        )
    except CommandFailed as error:
        print(f"\nnnunet-skd demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        return 130
    return 0
