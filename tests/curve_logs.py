"""nnU-Net's training logs and model folders, written by hand."""

import json

from toy import toy_plans

DATASET = "Dataset900_Toy"
STAMP = "2026-05-04 10:00:00.123456: "
HEAD = "\n#######\nPlease cite the following paper\n#######\n \n2026-05-04 09:59:59.5: do_dummy_2d_data_aug: False \n"


def epoch_text(epoch, dice, seconds=60.0):
    """As nnU-Net writes an epoch; dice is the text between the brackets, or a number."""
    dice = dice if isinstance(dice, str) else f"np.float32({dice})"
    lines = ["", f"Epoch {epoch}", "Current learning rate: 0.01", "train_loss -0.5", "val_loss -0.4"]
    lines += [f"Pseudo dice [{dice}]", f"Epoch time: {seconds} s", "Yayy! New best EMA pseudo Dice: 0.7"]
    return "".join(f"{STAMP}{line} \n" for line in lines)


def write_log(fold, dice, *, first=0, seconds=60.0, name="training_log_2026_5_4_10_00_00", end=""):
    fold.mkdir(parents=True, exist_ok=True)
    epochs = "".join(epoch_text(first + i, value, seconds) for i, value in enumerate(dice))
    (fold / f"{name}.txt").write_text(HEAD + epochs + end)


def make_model(folder, curves, *, iterations=250, finished=True, dataset=DATASET, labels=None, seconds=60.0):
    """A model folder with a fold per curve."""
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(toy_plans() | {"dataset_name": dataset}))
    description = {
        "labels": labels or {"background": 0, "a": 1},
        "channel_names": {"0": "CT"},
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    for fold, dice in curves.items():
        write_log(folder / f"fold_{fold}", dice, seconds=seconds)
        if iterations:
            debug = {"num_iterations_per_epoch": str(iterations), "loss": "..."}
            (folder / f"fold_{fold}" / "debug.json").write_text(json.dumps(debug))
        if finished:
            (folder / f"fold_{fold}" / "checkpoint_final.pth").touch()
    return folder
