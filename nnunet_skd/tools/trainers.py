"""Look a trainer up by its name, as nnU-Net does."""

import io
from contextlib import redirect_stdout

from nnunet_skd.catalogue import trainer_classes
from nnunet_skd.compat import find_trainer
from nnunet_skd.messages import first_line
from nnunet_skd.tools.errors import BadInput


class TrainerNotFound(BadInput):
    """No class of this name is where nnU-Net looks."""


def is_known(name: str) -> bool:
    """Whether :func:`look_up` finds a trainer of this name."""
    try:
        look_up(name)
    except BadInput:
        return False
    return True


def look_up(name: str) -> type:
    """The trainer that ``-tr name`` means.

    Raises:
        TrainerNotFound: there is none.
        BadInput: a file that nnU-Net imports on the way cannot be imported, or the class is not a trainer.
    """
    try:
        with redirect_stdout(io.StringIO()):  # nnU-Net prints every module that it looks into
            return find_trainer(name)
    except RuntimeError as error:
        way_out = "Check the spelling; the folder of your own trainer must be in nnUNet_extTrainer"
        if name in trainer_classes():
            way_out = "Make its trainers known: nnunet-skd register"
        raise TrainerNotFound(
            f"nnU-Net does not find the trainer {name}. {way_out} ('nnunet-skd doctor -tr {name}' shows what is found)"
        ) from error
    except Exception as error:  # whatever a module on the search path raises
        raise BadInput(
            f"looking for the trainer {name} ended with {type(error).__name__}: {first_line(error)}. Correct that file,"
            " or take its folder out of nnUNet_extTrainer"
        ) from error
