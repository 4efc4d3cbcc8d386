"""How the second training begins: with all weights of the model, its last layer too.

nnU-Net's -pretrained_weights makes the last layer anew, for labels that may be others. Here they are the same, and a
short training may not find every class again. So the weights are saved as a checkpoint from before the first epoch,
which ``nnUNetv2_train --c`` continues, after any stop too.
"""

import io
import os
from contextlib import redirect_stdout
from pathlib import Path

import torch
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_skd.compat import with_variables
from nnunet_skd.messages import in_one_line
from nnunet_skd.tools.errors import BadInput

BEGINNING = "checkpoint_latest.pth"  # the first that --c looks for in a training that is not finished


def was_trained(fold: Path) -> bool:
    """Whether there is more than the beginning: nnU-Net adds another checkpoint after the first epoch."""
    return any(file.name != BEGINNING for file in fold.glob("checkpoint_*.pth"))


def begin(dataset: str, configuration: str, fold: str, trainer_name: str, plans_name: str, weights: Path) -> None:
    """Save the beginning of a training. One that has had an epoch is left alone.

    Args:
        dataset: nnU-Net's name, ``Dataset180_X``.
        configuration, plans_name: of the new training.
        fold: ``all`` or a number.
        trainer_name: what ``-tr`` will be.
        weights: checkpoint of a model.

    Raises:
        BadInput: the trainer's network has other weights than the checkpoint.
    """
    with redirect_stdout(io.StringIO()), with_variables({"nnUNet_wandb_enabled": "0"}):  # the training tells W&B
        trainer = get_trainer_from_args(
            dataset, configuration, fold if fold == "all" else int(fold), trainer_name, plans_name,
            device=torch.device("cpu"),
        )  # fmt: skip
        folder = Path(trainer.output_folder)
        if was_trained(folder):
            return
        trainer.initialize()
    load_all_weights(trainer, weights)
    trainer.current_epoch = -1  # nnU-Net saves the number of the next one
    unfinished = folder / f"{BEGINNING}.tmp"
    trainer.save_checkpoint(str(unfinished))
    os.replace(unfinished, folder / BEGINNING)


def load_all_weights(trainer: nnUNetTrainer, weights: Path) -> None:
    """Into the network of an initialised trainer on the CPU.

    Raises:
        BadInput: the network has others.
    """
    try:
        content = torch.load(weights, map_location="cpu", weights_only=False)
        trainer.network.load_state_dict(content["network_weights"])
    except Exception as error:  # of unpickling, and of weights by other names or of other shapes
        raise BadInput(
            f"{weights} does not fit the network of {type(trainer).__name__} ({in_one_line(error)}). Name another "
            f"trainer with -tr"
        ) from error
