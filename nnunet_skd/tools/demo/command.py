"""Train, predict and evaluate a first network with nnU-Net's own commands, one after the other.

Without arguments, the demo draws phantom coronary angiograms and trains DSKD on them for five epochs: on a GPU with
nnU-Net's own plans, on a CPU with a small network, which takes minutes on two cores. Each command is printed before it
runs, so that you can repeat it on your own data. The demo ends with a table (Dice, IoU, sensitivity, specificity,
accuracy) and a picture of image, truth and prediction side by side.

Everything is written to one folder (-o), which gets its own nnUNet_raw, nnUNet_preprocessed and nnUNet_results: your
nnU-Net folders are neither read nor written, and nnunetv2 is not changed. Run again with the same arguments, the demo
continues where it stopped. Five epochs show that everything works; they are too few to judge a method.

With --unlabelled, only four of the phantoms for training are labelled. nnUNetTrainer is trained on the four; its model
labels the others; and a second training goes on from its weights with all of them.

your own data, instead of phantoms:
  --data DIR                DatasetXXX_Name in nnU-Net's raw format. Test cases are imagesTs with labelsTs; if there
                            are none, a fifth of the training cases (at most 8) is held out.
  --images DIR --masks DIR  2D or 3D images and their masks, paired by name (a.png with a.png or a_mask.png), grey or
                            RGB, in a format that nnU-Net reads: .png .bmp .tif .nii.gz .nrrd .mha ... but not .jpg.
                            Mask values 0, 1, .. n, or 0 and 255. For CT or several channels use --data.
Images are linked, never copied or changed.

examples:
  nnunet-skd demo
  nnunet-skd demo --dim 3 -o demo3d
  nnunet-skd demo --unlabelled -o demo_unlabelled
  nnunet-skd demo --data Dataset080_CoronaryXA -tr nnUNetTrainerDSKD_20epochs -o demo080
  nnunet-skd demo --images photos --masks annotations -o demo_mine

exit status: 0 done, 1 one of the commands failed (its name and log file are shown), 2 unusable input
"""

import argparse
import sys

from nnunet_skd.tools.demo.run import TRAINER, run_demo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", default="demo", metavar="DIR", help="folder for everything (default: ./%(default)s)")
    parser.add_argument("--dim", type=int, choices=(2, 3), default=2, help="2D angiograms or 3D CT scans (default: 2)")
    parser.add_argument("--data", metavar="DIR", help="a data set in nnU-Net's raw format, instead of phantoms")
    parser.add_argument("--images", metavar="DIR", help="a folder of images, instead of phantoms; needs --masks")
    parser.add_argument("--masks", metavar="DIR", help="the masks of --images")
    parser.add_argument("--unlabelled", action="store_true", help="few labels: train without and with pseudo-labels")
    parser.add_argument("-tr", default=TRAINER, metavar="TRAINER", help="trainer (default: %(default)s)")
    parser.add_argument("-device", choices=("cuda", "cpu", "mps"), help="default: cuda if there is a GPU, else cpu")
    parser.add_argument(
        "-np", type=int, metavar="N", help="processes for preprocessing (default: the CPU cores, at most 8)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="remove the files of an earlier demo in -o and start anew"
    )


def run(args: argparse.Namespace) -> int:
    try:
        run_demo(
            args.o,
            dim=args.dim,
            data=args.data,
            images=args.images,
            masks=args.masks,
            unlabelled=args.unlabelled,
            trainer=args.tr,
            device=args.device,
            num_processes=args.np,
            overwrite=args.overwrite,
        )
    except KeyboardInterrupt:
        print("\nStopped. The same command continues from here.", file=sys.stderr)
        return 130
    return 0
