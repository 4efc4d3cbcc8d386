"""Take a trained model to a machine without nnunet_skd.

The trainers of this package change the training, never the network. So a trained model can be passed on
as one of nnU-Net's own: nnunetv2 alone installs it and predicts with it, or ONNX Runtime runs it.

  a package for nnU-Net (-o)
    nnunet-skd export -d 80 -c 2d -tr nnUNetTrainerDSKD -f 0 1 2 3 4 -o model.zip
    On the other machine: nnUNetv2_install_pretrained_model_from_zip model.zip, then nnUNetv2_predict
    with -tr nnUNetTrainer. A name without .zip gives a model folder for
    nnUNetv2_predict_from_modelfolder -m FOLDER.
    The trainer is renamed to nnUNetTrainer; optimizer and distillation state stay behind (the result
    predicts and serves as -pretrained_weights; it cannot be continued with --c). The original trainer,
    versions and a SHA-256 of the weights are kept in each checkpoint under 'nnunet_skd'.

  a network for ONNX Runtime (--onnx), one fold
    nnunet-skd export -d 80 -c 2d -tr nnUNetTrainerDSKD -f 0 --onnx model.onnx
    writes model.onnx, and model.json with everything that another program needs: spacing, axes,
    normalization, patch size, sliding window, labels. Needs: pip install "nnunet_skd[onnx]"

Probabilities that can be trusted (--temperature T, found by 'nnunet-skd calibrate'): the last layer's
weights are divided by T, and so are the logits. The segmentations stay the same, but for nnUNetv2_ensemble,
which averages probabilities.

Both check themselves before anything appears under the given name: nnU-Net's predictor must give bit
for bit the logits of the source on a random patch, ONNX Runtime the same within 1e-3 (with --temperature
the logits of the divided network, which must be the source's divided by T, to rounding). A model whose
network is not the one that stock nnU-Net builds from the plans is refused. The source is only read,
and an existing target is never overwritten. Lists of cases in dataset.json are left out. (A run that is
killed with SIGKILL leaves a folder .nnunet_skd_... beside the target. Remove it.)

CAREFUL on the other machine: nnU-Net's installer overwrites without asking, and a plain nnU-Net
trained there for the same dataset, plans and configuration has the same folder. If there may be one,
export with -overwrite_plans_name NAME (predict with -p NAME), or write a model folder.

Checkpoints are read without executing code that they may contain. One that cannot be read this way is
refused, unless you vouch for it with --allow_pickle. nnU-Net itself takes no such precaution.
"""

import argparse
import sys
from pathlib import Path

from nnunetv2.utilities.file_path_utilities import get_output_folder

from nnunet_skd.compat import nnunet_folder
from nnunet_skd.model_folds import CHECKPOINT
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.export.temperature import check_temperature
from nnunet_skd.tools.export.to_nnunet import STOCK_TRAINER, Package, export_nnunet
from nnunet_skd.tools.export.to_onnx import OnnxModel, export_onnx
from nnunet_skd.tools.nnunet_folders import dataset_name, require_variable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_argument_group("the trained model")
    source.add_argument("-d", metavar="DATASET", help="dataset id or name")
    source.add_argument("-c", metavar="CONFIGURATION", help="2d, 3d_fullres, ...")
    source.add_argument("-tr", metavar="TRAINER", help="trainer that it was trained with, such as nnUNetTrainerDSKD")
    source.add_argument("-p", metavar="PLANS", default="nnUNetPlans", help="plans identifier (default: %(default)s)")
    source.add_argument("-m", metavar="FOLDER", help="model folder that holds plans.json, instead of -d -c -tr -p")
    source.add_argument("-f", metavar="FOLD", nargs="+", help="folds, or 'all' (default: 0 1 2 3 4; --onnx: name one)")
    source.add_argument(
        "-chk", metavar="NAME", default=CHECKPOINT, help="name of the checkpoint (default: %(default)s)"
    )
    source.add_argument(
        "--allow_pickle",
        action="store_true",
        help="execute code in the checkpoints if that is needed to read them; only if you trust their origin",
    )
    target = parser.add_argument_group("what to write")
    kind = target.add_mutually_exclusive_group(required=True)
    kind.add_argument("-o", metavar="OUTPUT", help="package for nnU-Net: NAME.zip, or a model folder")
    kind.add_argument("--onnx", metavar="NAME.onnx", help="network for ONNX Runtime, and NAME.json")
    target.add_argument(
        "-overwrite_plans_name", metavar="NAME", help="with -o: another plans identifier inside the package"
    )
    target.add_argument(
        "--temperature", type=float, default=1.0, metavar="T", help="divide the logits by T, see nnunet-skd calibrate"
    )
    target.add_argument(
        "--dynamic", action="store_true", help="with --onnx: any batch size, any patch size that the strides divide"
    )


def run(args: argparse.Namespace) -> None:
    if args.dynamic and not args.onnx:
        raise BadInput("--dynamic belongs to --onnx: nnU-Net's own network takes every size anyway")
    if args.overwrite_plans_name and args.onnx:
        raise BadInput("-overwrite_plans_name belongs to -o: an ONNX file is not installed among nnU-Net's models")
    check_temperature(args.temperature)
    if args.onnx and len(args.f or []) != 1:
        raise BadInput("an ONNX file holds one fold: name it, such as -f 0 (and average the logits of several files)")
    folder = _model_folder(args)
    if args.allow_pickle:
        print("--allow_pickle: code will be executed if a checkpoint cannot be read without", file=sys.stderr)
    if args.onnx:
        model = export_onnx(
            folder,
            args.onnx,
            args.f[0],
            args.chk,
            dynamic=args.dynamic,
            temperature=args.temperature,
            allow_pickle=args.allow_pickle,
        )
        _report_onnx(model, args.temperature)
    else:
        package = export_nnunet(
            folder,
            args.o,
            args.f or range(5),
            args.chk,
            plans_name=args.overwrite_plans_name,
            temperature=args.temperature,
            allow_pickle=args.allow_pickle,
        )
        _report_package(package, args.chk, args.temperature)


def _model_folder(args: argparse.Namespace) -> Path:
    if args.m:
        if args.d or args.c or args.tr:
            raise BadInput("-m names the model's folder; give it alone, or -d -c -tr (-p) instead")
        return Path(args.m)
    if not (args.d and args.c and args.tr):
        raise BadInput("which model? Give -d, -c and -tr (and -p), or its folder with -m")
    require_variable("nnUNet_results")
    return Path(get_output_folder(dataset_name(args.d), args.tr, args.p, args.c))


def _report_package(package: Package, checkpoint_name: str, temperature: float) -> None:
    smaller = _shrinkage(package.bytes_before, package.bytes_after)
    print(f"{package.path}: {package.trainer_name} as {STOCK_TRAINER}, {smaller}")
    exactly = "bit for bit" if temperature == 1 else f"divided by {temperature:g}"
    print(f"self-check: logits equal to the source's, {exactly}, for fold {' '.join(package.folds)}")
    _report_trainer(package.trainer_name, package.trainer_found)
    model = f"{package.dataset_name}/{package.model_folder_name}"
    options = f"-f {' '.join(package.folds)} -i INPUT -o OUTPUT"
    if checkpoint_name != CHECKPOINT:
        options += f" -chk {checkpoint_name}"
    if package.previous_stage:
        options += " -prev_stage_predictions FOLDER"
        print(f"second stage of a cascade: it needs predictions of {package.previous_stage}; export that one as well")
    print("\non a machine with nnunetv2:")
    if package.path.is_dir():
        print(f"  nnUNetv2_predict_from_modelfolder -m {package.path.name} {options}")
    else:
        print(f"  nnUNetv2_install_pretrained_model_from_zip {package.path.name}")
        print(
            f"  nnUNetv2_predict -d {package.dataset_name} -c {package.configuration_name} -tr {STOCK_TRAINER} "
            f"-p {package.plans_name} {options}"
        )
    if package.has_postprocessing:
        print("  then nnUNetv2_apply_postprocessing with the package's postprocessing.pkl, which was copied unread")
    if not package.path.is_dir():
        results = nnunet_folder("nnUNet_results")
        print(f"\nCAREFUL: installing overwrites $nnUNet_results/{model} without asking.")
        if results and (results / model).is_dir():
            print(f"THIS machine has such a model: {results / model}. Do not install the package here.")
        print("To install beside one: export with -overwrite_plans_name NAME, or write a model folder.")


def _report_onnx(model: OnnxModel, temperature: float) -> None:
    print(f"{model.path}: {model.trainer_name}, {_shrinkage(model.bytes_before, model.bytes_after)}")
    if temperature != 1:
        print(f"its logits are those of the source divided by {temperature:g}")
    tried = ", ".join("x".join(map(str, shape)) for shape in model.shapes_tried)
    print(
        f"self-check: max abs difference to PyTorch {model.max_abs_difference:.2e} (float32; B x C x spatial: {tried})"
    )
    _report_trainer(model.trainer_name, model.trainer_found)
    print(f"{model.description}: how to preprocess, slide, and read the output")


def _report_trainer(name: str, found: bool) -> None:
    if not found:
        print(
            f"note: {name} is not installed here, so only its weights show that its network is stock; "
            "a trainer that changes an activation function would not be noticed"
        )


def _shrinkage(before: int, after: int) -> str:
    smaller = f" ({1 - after / before:.0%} smaller than the source's checkpoints)" if after < before else ""
    return f"{before / 1e6:.1f} MB -> {after / 1e6:.1f} MB{smaller}"
