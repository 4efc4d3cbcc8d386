"""What a study is: a small file in experiments/studies that makes one ``Study`` named ``STUDY``."""

import importlib.util
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_skd.tools.errors import BadInput

EXPERIMENTS = Path(__file__).resolve().parents[1]
PREPARATIONS = ("pseudo_labels", "unlabelled")
REVIEWS = ("doubtful corrected", "random corrected", "doubtful left out")
TAUGHT_BY_MODELS = {"nnUNet_skd_teacher": "{models}"}  # environment of an arm whose teachers are its models


@dataclass(frozen=True)
class Model:
    """A finished model of another arm, from the same draw; of the same seed where none is named."""

    arm: str
    seed: int | None = None


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Args:
        trainer: a name of nnU-Net's or this package's trainers, or ``module:Class`` of a file in experiments/.
        labelled: ``draw``, what the draw has labelled; ``all`` labels of the dataset; or ``fold 0`` to ``fold 4``, the
            training cases of that fold.
        steps: factor on the study's steps.
        preset: another preset than the study's, such as a compact width.
        models: finished models that this arm needs.
        environment: variables for the training; ``{models}`` stands for the folders of ``models``, joined by ":".
        start: the model that gives the starting weights (nnU-Net's -pretrained_weights).
        keeps_last_layer: all weights of ``start``; nnU-Net's -pretrained_weights makes the last layer anew.
        prepare: ``pseudo_labels``: the ``models`` together, with mirroring, label the images outside the draw and the
            slices that nobody annotated, and the training takes these labels as if they were true; ``unlabelled``: the
            images outside the draw are given to the training by ``nnunet-skd unlabelled``.
        review: what a person does about six of the pseudo-labels. ``doubtful corrected``: those that nnunet-skd
            pseudo-labels names get the true label; ``random corrected``: any six do; ``doubtful left out``: the
            training goes without those that it names.
        annotated_intensities: nnunet-skd fingerprint measures the intensities of the study's annotated slices alone;
            nnU-Net's own extractor counts ignored voxels.
        ensemble: nothing is trained; the ``models`` predict together.
        seeds: other seeds than the study's.
        against: the arms that it is compared with; None: the reference alone.
    """

    trainer: str = "nnUNetTrainer"
    labelled: str = "draw"
    steps: float = 1
    preset: str | None = None
    models: tuple[Model, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    start: Model | None = None
    keeps_last_layer: bool = False
    prepare: str | None = None
    review: str | None = None
    annotated_intensities: bool = False
    ensemble: bool = False
    seeds: tuple[int, ...] | None = None
    against: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Study:
    """A question, and the trainings that answer it.

    Args:
        question: one sentence, which stands above the table.
        dataset: name of a raw dataset of nnU-Net.
        configuration: nnU-Net's ``2d`` or ``3d_fullres``; 3D data in ``2d`` are slices.
        preset: JSON file for ``nnunet-skd compact``, relative to the repository: network, patch and batch.
        arms: by name; the first one is the reference.
        metrics: names of ``nnunet-skd evaluate``, chosen beforehand; the first one is the primary.
        seeds: of the trainings.
        draws: which cases are labelled: numbers of random draws, or of nnU-Net's five folds.
        labelled: number of cases in a draw; None takes all of them (and one draw).
        folds: the draws are folds: a training has the fold's training cases, and is tested on its other cases.
        test: ``imagesTs``, the test set, or ``rest``, the labelled cases outside the draw: for choices that have to be
            made before the test set is looked at.
        steps: of a training; nnU-Net's learning rate ends at the last one.
        iterations: steps per epoch, after which a teacher and a checkpoint may be made.
        mirroring: ways to predict: without (False) and with (True) nnU-Net's mirroring.
        noise: the study whose reference arm, over its seeds, says what a difference of two trainings is worth;
            None: this study.
        annotated_slices: each labelled volume keeps this number of axial slices; the others get the ignore label.
    """

    question: str
    dataset: str
    arms: dict[str, Arm]
    configuration: str = "2d"
    preset: str = "experiments/presets/cpu_small.json"
    metrics: tuple[str, ...] = ("Dice",)
    seeds: tuple[int, ...] = (0, 1, 2)
    draws: tuple[int, ...] = (0,)
    labelled: int | None = None
    folds: bool = False
    test: str = "imagesTs"
    steps: int = 2000
    iterations: int = 100
    mirroring: tuple[bool, ...] = (False,)
    noise: str | None = None
    annotated_slices: int | None = None

    def __post_init__(self) -> None:
        if not self.arms or not self.metrics or not self.seeds or not self.draws or not self.mirroring:
            raise BadInput("a study needs arms, metrics, seeds, draws and mirroring")
        if not re.fullmatch(r"Dataset\d{3}_\w+", self.dataset):
            raise BadInput(f"'{self.dataset}' is no dataset of nnU-Net: it is written Dataset080_NAME")
        if self.test not in ("imagesTs", "rest"):
            raise BadInput(f"test is 'imagesTs' or 'rest', not '{self.test}'")
        if self.folds and (self.labelled is not None or self.test != "rest"):
            raise BadInput('folds are tested on their own validation cases: set test="rest", and no number in labelled')
        if self.labelled is None and not self.folds and (len(self.draws) > 1 or self.test == "rest"):
            raise BadInput("all cases are labelled, so there is one draw, tested on imagesTs; set labelled to a number")
        for name, arm in self.arms.items():
            self._check(name, arm)

    def _check(self, name: str, arm: Arm) -> None:
        models = (*arm.models, arm.start) if arm.start else arm.models
        for other in (*(model.arm for model in models), *(arm.against or ())):
            if other not in self.arms:
                raise BadInput(f"arm '{name}' needs '{other}', which the study does not have")
        if not re.fullmatch(r"draw|all|fold [0-4]", arm.labelled):
            raise BadInput(f"arm '{name}': labelled is 'draw', 'all' or 'fold 0' to 'fold 4', not '{arm.labelled}'")
        if arm.labelled != "draw" and self.test == "rest":
            raise BadInput(f"arm '{name}' would be trained on the cases that it is tested on")
        if arm.prepare is not None and arm.prepare not in PREPARATIONS:
            raise BadInput(f"arm '{name}': prepare is one of {', '.join(PREPARATIONS)}, not '{arm.prepare}'")
        ignored = self.annotated_slices is not None and arm.prepare == "pseudo_labels"
        if arm.prepare and self.labelled is None and not (self.folds or ignored):
            raise BadInput(f"arm '{name}': everything is labelled, so there is nothing to prepare")
        if arm.prepare == "pseudo_labels" and not arm.models:
            raise BadInput(f"arm '{name}': pseudo-labels come from finished models; name them in models")
        if arm.review is not None and arm.review not in REVIEWS:
            raise BadInput(f"arm '{name}': review is one of {', '.join(REVIEWS)}, not '{arm.review}'")
        if arm.review and (arm.prepare != "pseudo_labels" or self.labelled is None):
            raise BadInput(f"arm '{name}': there are no images outside a draw whose pseudo-labels could be reviewed")
        if arm.keeps_last_layer and arm.start is None:
            raise BadInput(f"arm '{name}' keeps the last layer of a model that it does not name; name it in start")
        if arm.annotated_intensities and self.annotated_slices is None:
            raise BadInput(f"arm '{name}': without annotated_slices no voxel is ignored")
        if arm.ensemble and len(arm.models) < 2:
            raise BadInput(f"arm '{name}': an ensemble needs two models or more")
        if (self.steps * arm.steps) % self.iterations:
            raise BadInput(f"arm '{name}': {self.steps * arm.steps:g} steps are no whole epochs of {self.iterations}")

    @property
    def reference(self) -> str:
        return next(iter(self.arms))

    def compared_with(self, arm: str) -> tuple[str, ...]:
        """The arms whose difference to this one a table shows."""
        against = self.arms[arm].against
        return tuple(other for other in ((self.reference,) if against is None else against) if other != arm)


@dataclass(frozen=True)
class Cell:
    """One arm in one draw with one seed."""

    arm: str
    draw: int
    seed: int

    def __str__(self) -> str:
        return f"{self.arm}, draw {self.draw}, seed {self.seed}"


def cells(study: Study) -> list[Cell]:
    """What the study's rows come from: seed by seed, so that a study cut short has every arm."""
    return [
        Cell(name, draw, seed)
        for seed in sorted({seed for arm in study.arms.values() for seed in arm.seeds or study.seeds})
        for draw in study.draws
        for name, arm in study.arms.items()
        if seed in (arm.seeds or study.seeds)
    ]


def load_study(name: str) -> tuple[str, Study]:
    """A study of experiments/studies by name, or a file of your own by path.

    Returns:
        its name and the study.

    Raises:
        BadInput: no such study, or a file without ``STUDY``.
    """
    path = Path(name) if name.endswith(".py") else EXPERIMENTS / "studies" / f"{name}.py"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in (EXPERIMENTS / "studies").glob("*.py")))
        raise BadInput(f"there is no study '{name}'. There are: {known}")
    spec = importlib.util.spec_from_file_location(f"study_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not isinstance(getattr(module, "STUDY", None), Study):
        raise BadInput(f"{path} makes no Study named STUDY")
    return path.stem, module.STUDY


def load_preset(path: str) -> dict:
    """A preset's settings without its description: what a network is made of.

    Raises:
        BadInput: no such file.
    """
    file = EXPERIMENTS.parent / path
    if not file.is_file():
        raise BadInput(f"there is no preset {file}")
    return {key: value for key, value in json.loads(file.read_text()).items() if key != "description"}
