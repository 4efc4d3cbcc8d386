"""What a GPU would punish, on the CPU: a step that waits for the device, and tensors left on another one.

On torch's meta device nothing has a value, so that every operation that needs one on the host (item, a boolean mask,
nonzero) raises, as does one of tensors of two devices. nnU-Net's own step reads the loss once, and decides by an ignore
label's voxels whether there is a cross-entropy: both are taken out.
"""

import pytest
import torch
from toy import FAMILIES, make_batch, make_trainer, start_epoch

from nnunet_skd.acw.branch import ReconstructionBranch


@pytest.mark.parametrize("trainer_class", FAMILIES)
@pytest.mark.parametrize(
    "task", [{}, {"dim": 3}, {"regions": True}, {"ignore": True}, {"regions": True, "ignore": True}], ids=str
)
def test_a_step_neither_waits_for_the_device_nor_mixes_devices(trainer_class, task, nnunet_env, monkeypatch):
    monkeypatch.setattr(ReconstructionBranch, "copy_head", lambda *_: None)  # there is nothing to copy
    trainer = make_trainer(trainer_class, stages=4, **task)
    trainer.device = torch.device("meta")
    trainer.initialize()
    if task.get("ignore"):
        trainer.loss.segmentation_loss.loss.forward = lambda output, target: output.mean()
    start_epoch(trainer, 1)
    parameters = [*trainer.network.parameters(), *trainer.loss.parameters()]
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: torch.zeros(tensor.shape))
    for _ in range(2):
        trainer.train_step(make_batch(trainer))
    assert all(p.is_meta for p in parameters) and parameters[0].grad is not None
    with pytest.raises(RuntimeError, match="Cannot copy out of meta tensor"):  # only an epoch's end reads them
        trainer.loss.means.pop()
