"""What does a trainer cost here? Step time, memory and inference time, as ratios to the first trainer.

Real trainers of nnU-Net run on random data in the shape of a dataset's plans: only the plans are needed, no
preprocessed image, and nothing is written to nnUNet_results. The trainers take turns step by step in one process
(A B A B ...), so that whatever else the machine does hits all of them alike; ratios are taken within each turn.

The table, in multiples of the first trainer's median step where no unit is given:
  step ms    a training step: median (lower - upper quartile) after a warm-up, which includes torch.compile
  ratio      step time to the first trainer: median (lower - upper quartile) of the turns
  teacher    forward pass of the teacher
  losses     all losses, forward and backward pass up to the network's outputs
  rest       forward and backward pass of the network, clipping, optimizer, transfer
  MiB        peak memory of a step: the trainer's own tensors. On CUDA by PyTorch's allocator; on the CPU by its
             profiler, the same in every run, but without what oneDNN takes for itself. The data loader is not in it
  img/s      training patches per second (2D), or Mvox/s, million voxels per second (3D)
  s/case     prediction of a case of the plans' median shape by nnUNetv2_predict's sliding window with mirroring;
             minutes for a 3D case on the CPU, so --cases 0 leaves it out

The same trainer twice (-tr nnUNetTrainer nnUNetTrainer) shows how far the ratios can be trusted. If only one trainer
is named, nnUNetTrainer comes first. With --losses, what the loss terms add to nnU-Net's Dice and cross-entropy is
measured at 2, 14 and 105 classes; no dataset is needed. On the CPU as many threads work as nnUNetv2_train
would use, unless OMP_NUM_THREADS is set.

examples:
  nnunet-skd bench -d 80 -c 2d -tr nnUNetTrainer nnUNetTrainerDSKD -device cuda -o bench_80
  nnunet-skd bench -d 81 -c 3d_fullres_cpu_demo -device cpu --steps 50 --cases 0
  nnunet-skd bench --losses -device cpu -o bench_losses
"""

import argparse
import os
from pathlib import Path

import torch

from nnunet_skd.tools.bench.report import loss_table, refuse_to_overwrite, save, trainer_table
from nnunet_skd.tools.bench.runs import bench, bench_loss_terms
from nnunet_skd.tools.errors import BadInput

REFERENCE = "nnUNetTrainer"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", metavar="DATASET", help="dataset id or name, planned (nnUNetv2_plan_experiment)")
    parser.add_argument("-c", metavar="CONFIGURATION", help="configuration, such as 2d")
    parser.add_argument(
        "-tr", nargs="+", default=[REFERENCE, "nnUNetTrainerDSKD"], metavar="TRAINER", help="default: %(default)s"
    )
    parser.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="plans identifier (default: %(default)s)")
    parser.add_argument("-device", choices=("cuda", "cpu"), default="cuda", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each trainer (default: %(default)s)")
    parser.add_argument(
        "--cases", type=int, default=3, help="timed predictions of each trainer, 0: none (default: %(default)s)"
    )
    parser.add_argument(
        "--losses", action="store_true", help="measure the loss terms instead; -d, -c, -tr are not used"
    )
    parser.add_argument("-o", metavar="DIR", type=Path, help="write bench.json, bench.txt and bench.png there")


def run(args: argparse.Namespace) -> int:
    if args.o:
        refuse_to_overwrite(args.o)
    if args.device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(os.cpu_count())
    if args.device == "cuda":
        torch.backends.cudnn.benchmark = True  # as nnUNetv2_train
    if args.losses:
        results = bench_loss_terms(args.device, args.steps)
        print(loss_table(results))
    else:
        if args.d is None or args.c is None:
            raise BadInput("give a dataset and a configuration, such as -d 80 -c 2d; or --losses, which needs none")
        trainers = args.tr if len(args.tr) > 1 or args.tr == [REFERENCE] else [REFERENCE, *args.tr]
        results = bench(args.d, args.c, trainers, args.p, args.device, args.steps, args.cases)
        print(trainer_table(results))
    if args.o:
        save(results, args.o)
        print(f"\nbench.json, bench.txt and bench.png are in {args.o}")
    return 0
