"""See a network train, predict and be measured: nnU-Net's real commands, one after the other.

Without arguments it draws phantom coronary angiograms and trains DSKD on them for five epochs, on a GPU with nnU-Net's
own plans, on a CPU with a small network (minutes, on two cores). Each command is printed before it runs, so that you
can repeat it on your own data. At the end stand a table (Dice, IoU, sensitivity, specificity, accuracy) and a picture
of image, truth and prediction side by side.

Everything is written to one folder (-o), with nnUNet_raw, nnUNet_preprocessed and nnUNet_results of its own: your own
nnU-Net folders are neither read nor written, and nnunetv2 stays as it is. Called again with the same arguments, the
demo goes on where it stopped. Five epochs show that everything works; they are too few to judge a method.

your own data, instead of phantoms:
  --data DIR                DatasetXXX_Name in nnU-Net's raw format. Test cases: imagesTs with labelsTs; where there
                            are none, a fifth of the training cases (at most 8) is held out.
  --images DIR --masks DIR  2D or 3D images and their masks, paired by name (a.png with a.png or a_mask.png), grey or
                            RGB, in a format that nnU-Net reads: .png .bmp .tif .nii.gz .nrrd .mha ... but not .jpg.
                            Mask values 0, 1, .. n, or 0 and 255. For CT or several channels use --data.
Images are linked, never copied or changed.

examples:
  nnunet-skd demo
  nnunet-skd demo --dim 3 -o demo3d
  nnunet-skd demo --data Dataset080_CoronaryXA -tr nnUNetTrainerDSKD_20epochs -o demo080
  nnunet-skd demo --images photos --masks annotations -o demo_mine

exit status: 0 done, 1 one of the commands failed (its name and log file are shown), 2 unusable input
"""

import argparse
import signal
import sys

from nnunet_skd.tools.demo.processes import CommandFailed
from nnunet_skd.tools.demo.run import TRAINER, run_demo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", default="demo", metavar="OUT", help="folder for everything (default: ./%(default)s)")
    parser.add_argument("--dim", type=int, choices=(2, 3), default=2, help="2D angiograms or 3D CT (default: 2)")
    parser.add_argument("--data", metavar="DIR", help="a data set in nnU-Net's raw format instead of phantoms")
    parser.add_argument("--images", metavar="DIR", help="a folder of images instead of phantoms; needs --masks")
    parser.add_argument("--masks", metavar="DIR", help="the masks of --images")
    parser.add_argument("-tr", "--trainer", default=TRAINER, help="trainer (default: %(default)s)")
    parser.add_argument("-device", choices=("cpu", "cuda", "mps"), help="default: cuda where there is a GPU, else cpu")
    parser.add_argument(
        "-np", type=int, metavar="N", help="processes for preprocessing (default: the CPU cores, at most 8)"
    )
    parser.add_argument("--overwrite", action="store_true", help="remove an earlier demo's files in OUT and start anew")


def run(args: argparse.Namespace) -> int:
    # As Ctrl-C: the command that runs is ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run_demo(
            args.o,
            dim=args.dim,
            data=args.data,
            images=args.images,
            masks=args.masks,
            trainer=args.trainer,
            device=args.device,
            num_processes=args.np,
            overwrite=args.overwrite,
        )
    except CommandFailed as error:
        print(f"\nnnunet-skd demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        return 130
    return 0
