"""How a training begins with all weights of a model, its last layer too.

nnU-Net's -pretrained_weights makes the last layer anew, for labels that may be others. Where they are the same, a short
training may not find every class again. So the weights are saved as a checkpoint from before the first epoch, which
``nnUNetv2_train --c`` continues, after any stop too.
"""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import torch
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_skd.compat import with_variables
from nnunet_skd.messages import in_one_line
from nnunet_skd.tools.checkpoint_file import read_checkpoint
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.files import write_file, written_by_a_library

# The last that --c looks for, and the first that nnU-Net writes, after each epoch that is the best so far. (A
# checkpoint_latest.pth would stay for 50 epochs, and --c would go back to it.)
BEGINNING = "checkpoint_best.pth"


class OtherWeights(BadInput):
    """A checkpoint whose weights are not those of the network."""


def was_trained(fold: Path) -> bool:
    """Whether the folder of a fold holds more than a beginning."""
    return any(file.name != BEGINNING or not _is_beginning(file) for file in fold.glob("checkpoint_*.pth"))


def _is_beginning(checkpoint: Path) -> bool:
    try:
        return read_checkpoint(checkpoint, mapped=True).get("current_epoch") == 0
    except BadInput:  # whatever it is, it was not written here
        return False


def begin(
    dataset: str,
    configuration: str,
    fold: str,
    trainer_name: str,
    plans_name: str,
    weights: Path,
    teachers: Sequence[Path] = (),
) -> Path:
    """Save the beginning of a training. One that has had an epoch is left alone.

    Args:
        dataset: nnU-Net's name, ``Dataset180_X``.
        configuration, plans_name: of the new training.
        fold: ``all`` or a number.
        trainer_name: what ``-tr`` will be.
        weights: checkpoint of a model.
        teachers: folders of finished models, which the training is to remember as any other checkpoint of it does.

    Returns:
        The folder of the training's fold.

    Raises:
        OtherWeights: the trainer's network has others than the checkpoint.
        BadInput: the trainer cannot be set up on a CPU.
        OSError: a file cannot be read or written.
    """
    number = fold if fold == "all" else int(fold)
    try:
        with redirect_stdout(io.StringIO()), with_variables({"nnUNet_wandb_enabled": "0"}):  # the training tells W&B
            trainer = get_trainer_from_args(
                dataset, configuration, number, trainer_name, plans_name, device=torch.device("cpu")
            )
            folder = Path(trainer.output_folder)
            if was_trained(folder):
                return folder
            trainer.initialize()
    except OSError:  # of nnUNet_results, and no fault of the trainer's
        raise
    except Exception as error:  # of a trainer that needs a GPU, another fold, or other plans
        raise BadInput(f"{trainer_name} cannot be set up ({in_one_line(error)}). Name another with -tr") from error
    load_all_weights(trainer, weights)
    if teachers:
        trainer.teacher.folders = [str(folder) for folder in teachers]
    trainer.current_epoch = -1  # nnU-Net saves the number of the next one
    with written_by_a_library(folder / BEGINNING):
        write_file(folder / BEGINNING, lambda file: trainer.save_checkpoint(str(file)))
    return folder


def load_all_weights(trainer: nnUNetTrainer, weights: Path) -> None:
    """Into the network of an initialised trainer on the CPU.

    Raises:
        OtherWeights: the network has others.
        OSError: the checkpoint cannot be read.
    """
    try:
        content = torch.load(weights, map_location="cpu", weights_only=False)
        trainer.network.load_state_dict(content["network_weights"])
    except OSError:
        raise
    except Exception as error:  # of unpickling, and of weights by other names or of other shapes
        raise OtherWeights(
            f"{weights} does not fit the network of {type(trainer).__name__} ({in_one_line(error)}). Name another "
            f"trainer with -tr"
        ) from error
