"""torch.compile on the CPU (backend aot_eager): nnU-Net compiles on CUDA by default."""

import pytest
import torch
from toy import make_batch, make_trainer, start_epoch

from nnunet_skd.catalogue import trainer_classes
from nnunet_skd.feature_tap import FeatureTap


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nnUNetTrainerDSKD", "nnUNetTrainerDSKD_ACW"])
def test_compiled_steps_equal_eager_steps(nnunet_env, aot_eager, name):
    results = []
    for compiled in (False, True):
        trainer = make_trainer(trainer_classes()[name], patch=16, stages=4)
        trainer._do_i_compile = lambda compiled=compiled: compiled
        trainer.initialize()
        assert isinstance(trainer.network, torch._dynamo.OptimizedModule) == compiled
        losses = []
        for epoch in (0, 1, 500):
            start_epoch(trainer, epoch)
            losses += [trainer.train_step(make_batch(trainer, seed))["loss"].item() for seed in range(2)]
        with torch.no_grad():
            trainer.on_validation_epoch_start()
            losses.append(trainer.validation_step(make_batch(trainer))["loss"].item())
        results.append(losses)
    assert results[1] == pytest.approx(results[0], rel=1e-4)


def test_a_tap_registered_after_the_first_forward_pass_is_reported(aot_eager):
    """torch.compile ignores late hooks silently; the tap does not."""
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Conv2d(2, 2, 1))
    compiled = torch.compile(network)
    compiled(torch.zeros(1, 1, 8, 8))
    tap = FeatureTap(network[1])
    compiled(torch.zeros(1, 1, 8, 8))
    with pytest.raises(RuntimeError, match="tap is empty.*before the tap was registered"):
        tap.pop()
