"""ACW-SKD as one entry of a trainer's terms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from nnunet_skd.acw.adversarial_temperature import AdversarialTemperature
from nnunet_skd.acw.branch import ReconstructionBranch
from nnunet_skd.acw.rows import ROWS
from nnunet_skd.losses.term import Term

if TYPE_CHECKING:
    from nnunet_skd.step import Step, Task


def distillation_ramp(epoch: int, num_epochs: int) -> float:
    """r: 0 in the first 5 % of the training, then ``exp(-5 (1 - x)^2)`` with x from 0 to 1 over the next 20 %.

    The shape is FRSKD's (closest published), the times are ours.
    """
    if epoch < 0.05 * num_epochs:
        return 0.0
    return math.exp(-5 * (1 - min(1.0, (epoch - 0.05 * num_epochs) / (0.2 * num_epochs))) ** 2)


class AdversarialClassWise(Term):
    r"""ACW-SKD: a teacher that reconstructs the network's own features, and the terms that distil it back.

    Paper (Yu et al., Sci Rep 2025, doi 10.1038/s41598-025-98116-7, its abstract): an auxiliary head's coarse
    segmentation as prediction masks, class-wise feature distillation, feature reconstruction modules (FRM) at the
    penultimate and at the class-wise features, adversarial temperature loss with a learnable temperature. We had no
    access to its formulas; those below are the closest published ones or ours, as each function says. The symbols are
    those of :class:`nnunet_skd.acw.branch.ReconstructionBranch`.

    ======================  =====================================  ======  =========================================
    term                    formula                                weight  gradient goes to
    ======================  =====================================  ======  =========================================
    ``teacher``             nnU-Net's loss of (zT, target)         1       FRM_p, FRM_c, hT, network
    ``token``               CE(uT of detached c, k)                0.5     FRM_c, hT
    ``adversarial``         tau^2 <KL(zT / tau || z / tau)>        0.1 r   network (down), theta (up)
    ``class_wise``          tau^2 <KL(uT / tau || u / tau)>        0.01 r  network (down), theta (up)
    ``class_wise_feature``  <1 - cos(c, cT)>                       0.01 r  network
    ``reconstruction``      \|\| A(F) - A(FT) \|\|^2               0.1 r   network
    ======================  =====================================  ======  =========================================

    The three class-wise terms are about the classes that are in the patch and whose mask hits them, see
    :func:`nnunet_skd.acw.class_wise_features.masks_that_hit` (ours). Two of them weigh a tenth of the others: means
    over a few classes, not over voxels, they pull a small organ as hard as its Dice does (experiments/notebook.md).
    They are not 0, as the whole was better with them on angiograms; on CT they were not seen to help (docs/results.md).

    r is :func:`distillation_ramp`. A weight of 0 removes its term, and with the last term that needs it each part of
    the branch. The ablations (the paper has some; we do not know what they remove, so these are ours):

    * noCW: the three class-wise weights 0. No class-wise part at all; FRM_p reconstructs from F alone.
    * noAT: ``adversarial=0``. No term, no theta: tau stays at its start for ``class_wise``.
    * noFRM: ``feature_reconstruction=False``. FT = F and cT = c: the teacher is a second head hT alone. ``teacher``
      and ``adversarial`` stay; the other terms would compare a tensor with itself, or train what nothing distils: they
      are removed, whatever their weights.

    Raises:
        ValueError: negative weights; distillation from a teacher that no weight trains; and at the start of a training
            a network whose coarse head nnU-Net does not train, or whose last layer is not a 1x1 convolution.
    """

    name = "acw"
    needs_teacher = False
    needs_features = True
    under_autocast = True

    def __init__(
        self,
        *,
        teacher: float = 1.0,
        token: float = 0.5,
        adversarial: float = 0.1,
        class_wise: float = 0.01,
        class_wise_feature: float = 0.01,
        reconstruction: float = 0.1,
        feature_reconstruction: bool = True,
        tau_min: float = 1.0,
        tau_range: float = 4.0,
    ):
        super().__init__()
        weights = {
            "teacher": teacher,
            "token": token,
            "adversarial": adversarial,
            "class_wise": class_wise,
            "class_wise_feature": class_wise_feature,
            "reconstruction": reconstruction,
        }
        negative = {name: weight for name, weight in weights.items() if weight < 0}
        if negative:
            raise ValueError(f"weights must not be negative, got {negative}")
        self.feature_reconstruction = feature_reconstruction
        self.weights = {
            name: float(weight)
            for name, weight in weights.items()
            if weight and (feature_reconstruction or not ROWS[name].compares_features)
        }
        if not self._uses("teacher") and self._uses("adversarial", "reconstruction"):
            raise ValueError(
                "adversarial and reconstruction need teacher above 0: nothing would train the teacher that they "
                "distil. Set them to 0 too."
            )
        if not self._uses("teacher", "token") and self._uses("class_wise", "class_wise_feature"):
            raise ValueError(
                "class_wise and class_wise_feature need teacher or token above 0: nothing would train the teacher that "
                "they distil. Set them to 0 too."
            )
        self.temperature = None
        if self._uses("adversarial", "class_wise"):
            self.temperature = AdversarialTemperature(
                tau_min=tau_min, tau_range=tau_range, adversarial=self._uses("adversarial")
            )
        self.branch: ReconstructionBranch | None = None

    def _uses(self, *terms: str) -> bool:
        return any(term in self.weights for term in terms)

    def extra_repr(self) -> str:
        weights = ", ".join(f"{name}={weight:g}" for name, weight in self.weights.items())
        temperature = "" if self.temperature is None else f", {self.temperature.extra_repr()}"
        return f"{weights}, feature_reconstruction={self.feature_reconstruction}{temperature}"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.weights)

    @property
    def distilling(self) -> tuple[str, ...]:
        return tuple(name for name in self.weights if ROWS[name].distils)

    @property
    def lowest(self) -> dict[str, float]:
        return {"teacher": self.weights.get("teacher", 0.0) * self.lowest_segmentation_loss}

    def attach(self, task: Task) -> None:
        if len(task.supervised) < 2:
            raise ValueError(
                f"{task.trainer} takes its coarse masks from the second deep-supervision output, and nnU-Net does not "
                f"train the lowest of the {len(task.head_weights)} outputs of configuration "
                f"{task.configuration}. Use plans with four or more stages."
            )
        self.lowest_segmentation_loss = task.lowest_value
        self.branch = ReconstructionBranch(
            task.segmentation_layer,
            has_regions=task.has_regions,
            pixel_wise=self._uses("teacher"),
            class_wise=any(ROWS[name].class_wise for name in self.weights),
            reconstruction=self.feature_reconstruction,
            temperature=self.temperature,
        )

    def start_anew(self, task: Task) -> None:
        self.branch.copy_head(task.segmentation_layer)

    def parameter_groups(self) -> list[dict]:
        """theta moves by plain steps (see :class:`AdversarialTemperature`), the rest like the network."""
        theta = [] if self.temperature is None else list(self.temperature.parameters())
        others = [p for p in self.parameters() if all(p is not t for t in theta)]
        groups = [{"params": others}, {"params": theta, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}]
        return [group for group in groups if group["params"]]

    def start_epoch(self, epoch: int, num_epochs: int) -> None:
        if self.temperature is not None:
            self.temperature.set_epoch(epoch, num_epochs)

    def weighted(self, step: Step) -> dict[str, Tensor]:
        ramp = distillation_ramp(step.epoch, step.num_epochs)
        teacher = self.branch(step.features, step.outputs[1], step.labels(0), step.valid(0))
        step.log |= {"ramp": ramp, **teacher.log}
        return {
            name: weight * (ramp if ROWS[name].distils else 1.0) * ROWS[name].loss(step, teacher)
            for name, weight in self.weights.items()
        }

    def warnings(self, rows: list[dict[str, float]]) -> list[str]:
        if self.temperature is None or len(rows) < 5:
            return []
        low, high = self.temperature.tau_min, self.temperature.tau_min + self.temperature.tau_range
        last = [row.get("tau", math.nan) for row in rows[-5:]]
        return [
            f"tau = {last[-1]:.3f} has been within 2 % of its bound {bound:g} for 5 epochs: the adversary has "
            f"saturated, and the temperature is practically fixed"
            for bound in (low, high)
            if all(abs(tau - bound) <= 0.02 * (high - low) for tau in last)
        ]
