"""ACW-SKD is worse than nnU-Net on CT slices, from a network that knows the organs. Which part of it does the harm?

And do twice the steps win it back, as they win back what nnU-Net loses in 2000?
"""

from dataclasses import replace

from arms.methods import ACW, TWICE
from studies import methods_081_2d

NNUNET, START = "nnUNetTrainer", "start"
ARMS = methods_081_2d.STUDY.arms
CONTROLS = {
    name: replace(ARMS[ACW], trainer=f"no_mirroring:{ACW}_{part}_NoMirroring")
    for name, part in {"without the class-wise part": "noCW", "second head alone": "head"}.items()
}

STUDY = replace(
    methods_081_2d.STUDY,
    question="What of ACW-SKD does harm on CT slices?",
    arms={
        NNUNET: ARMS[NNUNET],
        **CONTROLS,
        ACW: replace(ARMS[ACW], against=(NNUNET, *CONTROLS)),
        TWICE: ARMS[TWICE],
        f"{ACW}, twice the steps": replace(ARMS[ACW], steps=2, against=(TWICE, ACW)),
        START: ARMS[START],
    },
)
