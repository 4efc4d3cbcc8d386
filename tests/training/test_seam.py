"""The seam: a term is one class and one line, a teacher is one class and one line, and nothing else knows of them."""

import pandas as pd
import pytest
import torch
from toy import initialized, make_batch, run_epoch, start_epoch

from nnunet_skd.losses.deep_distribution import DeepDistribution
from nnunet_skd.losses.term import Term
from nnunet_skd.teachers import Teacher
from nnunet_skd.trainer import SelfDistillationTrainer
from nnunet_skd.trainers.nnUNetTrainerDSKD import nnUNetTrainerDSKD

pytestmark = pytest.mark.usefixtures("nnunet_env")


class Entropy(Term):
    """A throw-away term: the entropy of the output."""

    name, needs_teacher = "entropy", False

    def forward(self, step):
        step.log["confidence"] = step.probabilities(0).detach().amax(1).mean()
        p = step.probabilities(0)
        return -(p * p.clamp_min(1e-6).log()).sum(1).mean()


class Mirror(Teacher):
    """A throw-away teacher: the network itself, on the mirrored image."""

    def attach(self, trainer):
        self._network = trainer.plain_network()

    def outputs(self, data):
        return [x.flip(-1) for x in self._network(data.flip(-1))]


class nnUNetTrainerDSKD_entropy(nnUNetTrainerDSKD):
    terms = (*nnUNetTrainerDSKD.terms, Entropy(weight=0.1))


class nnUNetTrainerDSKD_mirror(nnUNetTrainerDSKD):
    teacher = Mirror()


def trained(trainer_class, epochs=2):
    trainer = initialized(trainer_class)
    for epoch in range(epochs):
        run_epoch(trainer, epoch, plot=True)
    return trainer, pd.read_csv(f"{trainer.output_folder}/distillation.csv")


def test_a_term_is_one_class_and_one_line():
    trainer, table = trained(nnUNetTrainerDSKD_entropy)
    terms = ["segmentation", "ddl", "psdl", "entropy"]
    shares = [f"share_{name}" for name in terms]
    assert set(table) == {"epoch", *terms, *shares, "confidence", "alpha"}
    assert (table["entropy"] > 0).all() and table["confidence"].between(1 / 3, 1).all()
    assert table[shares].sum(axis=1).tolist() == pytest.approx([1, 1])
    losses = trainer.logger.get_checkpoint()["train_losses"]
    assert table[terms].sum(axis=1).tolist() == pytest.approx(losses, rel=1e-5)
    log = open(trainer.log_file).read()
    assert log.count("entropy ") == 4 and log.count("share_entropy ") == 2
    assert open(f"{trainer.output_folder}/distillation.png", "rb").read(4) == b"\x89PNG"


def test_a_teacher_is_one_class_and_one_line():
    trainer, table = trained(nnUNetTrainerDSKD_mirror)
    assert (table["ddl"] > 0).all()  # from the first epoch on
    assert table["psdl"][1] != 0 and table["share_ddl"].gt(0).all()
    assert open(f"{trainer.output_folder}/distillation.png", "rb").read(4) == b"\x89PNG"


def test_a_trainer_of_one_term_alone():
    class nnUNetTrainer_entropy(SelfDistillationTrainer):
        terms = (Entropy(weight=0.1),)

    trainer, table = trained(nnUNetTrainer_entropy)
    assert (table["entropy"] > 0).all()
    assert list(table.filter(like="share_")) == ["share_segmentation", "share_entropy"]


def test_a_term_without_a_weight_costs_and_says_nothing():
    class Never(Term):
        name, needs_teacher = "never", False

        def forward(self, step):
            raise AssertionError("a term of weight 0 is computed")

    class nnUNetTrainer_never(SelfDistillationTrainer):
        terms = (Never(weight=0.0),)

    _, table = trained(nnUNetTrainer_never)
    assert table["never"].tolist() == table["share_never"].tolist() == [0, 0]


def test_a_term_with_parameters_of_its_own_trains_and_continues(tmp_path):
    class Bias(Term):
        name, needs_teacher = "bias", False

        def __init__(self):
            super().__init__()
            self.offset = torch.nn.Parameter(torch.ones(3))

        def forward(self, step):
            return (self.offset - step.probabilities(0).mean((0, 2, 3))).square().sum()

    class nnUNetTrainer_bias(SelfDistillationTrainer):
        terms = (Bias(),)

    trainer, _ = trained(nnUNetTrainer_bias)
    (term,) = trainer.loss.terms
    assert (term.offset < 1).all()
    assert (nnUNetTrainer_bias.terms[0].offset == 1).all()  # the class attribute is nobody's training
    trainer.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    again = initialized(nnUNetTrainer_bias)
    again.load_checkpoint(str(tmp_path / "checkpoint.pth"))
    assert torch.equal(again.loss.terms[0].offset, term.offset)


def test_a_terms_schedule_follows_the_trainers_epochs():
    class Scheduled(Entropy):
        def weight_at(self, epoch, num_epochs):
            return self.weight * epoch / num_epochs

    class nnUNetTrainer_scheduled(SelfDistillationTrainer):
        terms = (Scheduled(weight=8.0),)

    values = []
    for epoch in (250, 500):
        trainer = initialized(nnUNetTrainer_scheduled)
        start_epoch(trainer, epoch)
        trainer.train_step(make_batch(trainer))
        values.append(trainer.loss.means.pop()["entropy"])
    assert values[1] == pytest.approx(2 * values[0])


def test_a_teachers_state_is_in_the_checkpoint(tmp_path):
    class Counting(Mirror):
        steps = 0

        def after_step(self):
            self.steps += 1

        def state_dict(self):
            return {"steps": torch.tensor(self.steps)}

        def load_state_dict(self, state):
            self.steps = int(state.get("steps", 0))

    class nnUNetTrainerDSKD_counting(SelfDistillationTrainer):
        teacher, terms = Counting(), (DeepDistribution(),)

    trainer, _ = trained(nnUNetTrainerDSKD_counting)
    assert trainer.teacher.steps == 6 and nnUNetTrainerDSKD_counting.teacher.steps == 0
    trainer.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    again = initialized(nnUNetTrainerDSKD_counting)
    again.load_checkpoint(str(tmp_path / "checkpoint.pth"))
    assert again.teacher.steps == 6


def test_a_teacher_may_refuse_before_any_data_is_read():
    class Refusing(Mirror):
        def check(self, trainer):
            raise ValueError(f"{type(trainer).__name__} has nobody to ask")

    class nnUNetTrainer_refusing(SelfDistillationTrainer):
        teacher = Refusing()

    from toy import make_trainer

    trainer = make_trainer(nnUNetTrainer_refusing)
    trainer.get_dataloaders = lambda: pytest.fail("data was read")
    with pytest.raises(ValueError, match="nnUNetTrainer_refusing has nobody to ask"):
        trainer.on_train_start()


def test_terms_that_would_wait_for_a_teacher_in_vain_are_refused():
    class nnUNetTrainer_alone(SelfDistillationTrainer):
        terms = (DeepDistribution(),)

    with pytest.raises(ValueError, match="nnUNetTrainer_alone has no teacher, and DeepDistribution would wait"):
        initialized(nnUNetTrainer_alone)


def test_features_that_no_term_reads_do_not_pile_up():
    class Reader(Term):
        name = "reader"
        needs_teacher = False
        needs_features = True

        def weight_at(self, epoch, num_epochs):
            return 0.0

    class nnUNetTrainer_reader(SelfDistillationTrainer):
        terms = (Reader(),)

    trainer = initialized(nnUNetTrainer_reader)
    start_epoch(trainer, 0)
    for seed in range(3):
        trainer.train_step(make_batch(trainer, seed))
    with pytest.raises(RuntimeError, match="the feature tap is empty"):
        trainer.loss.tap.pop()
