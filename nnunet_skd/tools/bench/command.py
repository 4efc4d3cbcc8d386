"""Measure what a trainer costs on this machine: step time, memory and inference time, as ratios to the first trainer.

The trainers run on random data in the shape of a dataset's plans: only the plans are needed, not the preprocessed
images, and nothing is written to nnUNet_results. The trainers run interleaved, step by step, in one process
(A B A B ...), so that other load on the machine affects all of them equally; ratios are taken within each round.

The table, in multiples of the first trainer's median step where no unit is given:
  step ms    a training step: median (lower - upper quartile) after a warm-up, which includes torch.compile
  ratio      step time relative to the first trainer: median (lower - upper quartile) over the rounds
  teacher    forward pass of the teacher
  losses     all losses of the labelled patches, forward and backward pass up to the network's outputs
  rest       forward and backward pass of the network, clipping, optimizer, transfer, losses of other patches
  MiB        peak memory of a step, the trainer's own tensors. On CUDA from PyTorch's allocator; on the CPU from
             its profiler: the same in every run, but without oneDNN's own memory. The data loader is not included
  img/s      training patches per second (2D), or Mvox/s, million voxels per second (3D)
  s/case     prediction of a case of the plans' median shape with nnUNetv2_predict's sliding window and mirroring.
             A 3D case takes minutes on the CPU; --cases 0 leaves it out

Trainers that learn from images without labels get random patches for these. Finished models cannot be replaced by
random numbers: name real ones with --teacher.

The same trainer twice (-tr nnUNetTrainer nnUNetTrainer) shows how exact the ratios are. If only one trainer is named,
it is compared with nnUNetTrainer. With --losses, what the loss terms add to nnU-Net's Dice and cross-entropy is
measured at 2, 14 and 105 classes; no dataset is needed. On the CPU, as many threads are used as by
nnUNetv2_train, unless OMP_NUM_THREADS is set.

examples:
  nnunet-skd bench -d 80 -c 2d -tr nnUNetTrainer nnUNetTrainerDSKD -device cuda -o bench_80
  nnunet-skd bench -d 81 -c 3d_fullres_cpu_demo -device cpu --steps 50 --cases 0
  nnunet-skd bench --losses -device cpu -o bench_losses
"""

import argparse
import os
from pathlib import Path

import torch

from nnunet_skd.model_checks import VARIABLE
from nnunet_skd.tools.bench.report import FILES, loss_table, save, trainer_table
from nnunet_skd.tools.bench.runs import bench, bench_loss_terms
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.files import require_absent, require_writable
from nnunet_skd.tools.nnunet_folders import dataset_name
from nnunet_skd.tools.teaching import teacher_folders

REFERENCE = "nnUNetTrainer"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", metavar="DATASET", help="dataset id or name, planned (nnUNetv2_plan_experiment)")
    parser.add_argument("-c", metavar="CONFIGURATION", help="configuration, such as 2d")
    parser.add_argument(
        "-tr",
        nargs="+",
        default=[REFERENCE, "nnUNetTrainerDSKD"],
        metavar="TRAINER",
        help=f"trainers; the first one is the reference (default: {REFERENCE} nnUNetTrainerDSKD)",
    )
    parser.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="plans identifier (default: %(default)s)")
    parser.add_argument(
        "--teacher",
        nargs="+",
        metavar="MODEL",
        help="model folders, or their names, for trainers such as nnUNetTrainerDistill",
    )
    parser.add_argument("-device", choices=("cuda", "cpu"), default="cuda", help="default: %(default)s")
    parser.add_argument(
        "--steps", type=int, default=20, metavar="N", help="timed steps of each trainer (default: %(default)s)"
    )
    parser.add_argument(
        "--cases",
        type=int,
        default=3,
        metavar="N",
        help="timed predictions of each trainer (default: %(default)s; 0: none)",
    )
    parser.add_argument(
        "--losses", action="store_true", help="measure the loss terms instead; -d, -c, -tr are not used"
    )
    parser.add_argument(
        "-o", metavar="DIR", type=Path, help="folder for bench.json, bench.txt and bench.png (default: only print)"
    )


def run(args: argparse.Namespace) -> None:
    if args.o:
        require_absent(args.o, FILES)
        require_writable(args.o)
    if args.device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(os.cpu_count())
    if args.device == "cuda":
        torch.backends.cudnn.benchmark = True  # as nnUNetv2_train
    if args.losses:
        results = bench_loss_terms(args.device, args.steps)
        print(loss_table(results))
    else:
        if args.d is None or args.c is None:
            raise BadInput("give a dataset and a configuration, such as -d 80 -c 2d, or --losses, which needs neither")
        trainers = args.tr if len(args.tr) > 1 or args.tr == [REFERENCE] else [REFERENCE, *args.tr]
        if args.teacher:
            os.environ[VARIABLE] = os.pathsep.join(map(str, teacher_folders(args.teacher, dataset_name(args.d))))
        results = bench(args.d, args.c, trainers, args.p, args.device, args.steps, args.cases)
        print(trainer_table(results))
    if args.o:
        save(results, args.o)
        print(f"\nbench.json, bench.txt and bench.png are in {args.o}")
