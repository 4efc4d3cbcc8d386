"""Write a trained model for ONNX Runtime, with a JSON file that says how to use it without nnU-Net."""

import importlib.util
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn

from nnunet_skd.messages import in_one_line
from nnunet_skd.model_folds import CHECKPOINT
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.export.description import describe
from nnunet_skd.tools.export.source import SelfCheckFailed, TrainedModel, downsampling
from nnunet_skd.tools.export.target import new_target
from nnunet_skd.tools.export.temperature import at_temperature
from nnunet_skd.tools.files import file_hash, new_files

MAX_DIFFERENCE = 1e-3  # between float32 logits of ONNX Runtime and PyTorch
ONE_FILE_LIMIT = 2 * 10**9  # bytes of weights; a protobuf file ends at 2 GiB, beyond it they go to MODEL.onnx.data
IMAGE, LOGITS = "image", "logits"


@dataclass(frozen=True)
class OnnxModel:
    """What was written, and the largest absolute difference of its logits to PyTorch's over all sizes tried."""

    path: Path
    description: Path
    max_abs_difference: float
    shapes_tried: list[tuple[int, ...]]
    bytes_before: int
    bytes_after: int
    trainer_name: str
    trainer_found: bool


def export_onnx(
    model_folder: str | Path,
    output: str | Path,
    fold: int | str,
    checkpoint_name: str = CHECKPOINT,
    *,
    dynamic: bool = False,
    temperature: float = 1.0,
    allow_pickle: bool = False,
) -> OnnxModel:
    """Write one fold's network as ONNX, without deep supervision, and ``MODEL.json`` beside it.

    Input ``image``: float32, (B, C, spatial), preprocessed. Output ``logits``: float32, (B, classes or regions,
    spatial). Fixed: B = 1 and the plans' patch size. Dynamic: any B, and any spatial size that the network's strides
    divide, from two bottleneck voxels per axis on; only B if the network states no strides.

    Args:
        model_folder: ``TRAINER__PLANS__CONFIGURATION`` with its fold folders.
        output: ends in ``.onnx``. Neither it nor the JSON file may exist.
        fold: ``0`` ... or ``"all"``.
        checkpoint_name: the file in the fold's folder.
        dynamic: see above.
        temperature: divide the logits by it, see `at_temperature`.
        allow_pickle: see `read_checkpoint`.

    Raises:
        BadInput: a package or the source is missing, the target exists, the source is unreadable or not stock.
        SelfCheckFailed: ONNX Runtime cannot run the network, or its logits differ from PyTorch's by more than
            `MAX_DIFFERENCE`; nothing is left.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise BadInput(f'{", ".join(missing)} missing: pip install "nnunet_skd[onnx]"')
    if Path(output).suffix.lower() != ".onnx":
        raise BadInput(f"{output} does not end in .onnx: the description beside it takes the same name with .json")
    output = new_target(output, model_folder)
    for beside in (output.with_suffix(".json"), Path(f"{output}.data")):
        new_target(beside, model_folder)

    model = TrainedModel(model_folder, [fold], checkpoint_name, allow_pickle)
    opened = at_temperature(model.open_fold(model.folds[0]), temperature, model)
    configuration = model.configuration(opened.configuration_name)
    channels = model.num_input_channels(configuration)
    factors = downsampling(configuration) if dynamic else None
    sizes = [(1, channels, *configuration.patch_size)]
    if dynamic:
        sizes.append((2, channels, *_another_size(configuration.patch_size, factors)))

    with new_files(output.parent) as aside:
        file = aside / output.name  # already the final name, by which the network refers to its data file
        print(f"writing {output.name} ...", flush=True)
        write_onnx(opened.network, file, sizes[0], dynamic, factors)
        print(f"comparing ONNX Runtime with PyTorch on {len(sizes)} patch{'es' if dynamic else ''} ...", flush=True)
        report = "Nothing was written. Please report this with the versions of onnx, onnxscript, onnxruntime and torch"
        try:
            difference = max_abs_difference(file, opened.network, sizes)
        except Exception as error:  # ONNX Runtime's errors have no other class in common
            reason = in_one_line(error, 500)
            raise SelfCheckFailed(f"ONNX Runtime cannot run what PyTorch wrote: {reason}. {report}") from error
        if not difference <= MAX_DIFFERENCE:
            raise SelfCheckFailed(
                f"logits of ONNX Runtime and PyTorch differ by {difference:.3g}, more than {MAX_DIFFERENCE:g}. {report}"
            )
        description = describe(model, opened, configuration) | {
            "onnx": {
                "file": output.name,
                "sha256": {part.name: file_hash(part) for part in sorted(file.parent.iterdir())},
                "input": _tensor(IMAGE, channels, configuration, dynamic, factors),
                "output": _tensor(LOGITS, model.label_manager.num_segmentation_heads, configuration, dynamic, factors),
                "max_abs_difference_to_pytorch": difference,
                "shapes_compared": sizes,
                "versions": {name: version(name) for name in ("onnx", "onnxscript", "onnxruntime")},
            }
        }
        file.with_suffix(".json").write_text(json.dumps(description, indent=2))
        parts = sorted(file.parent.iterdir())
        size = sum(part.stat().st_size for part in parts)

    return OnnxModel(
        path=output,
        description=output.with_suffix(".json"),
        max_abs_difference=difference,
        shapes_tried=sizes,
        bytes_before=opened.file.stat().st_size,
        bytes_after=size,
        trainer_name=opened.trainer_name,
        trainer_found=opened.trainer_found,
    )


def max_abs_difference(file: Path, network: nn.Module, shapes: list[tuple[int, ...]]) -> float:
    """Largest absolute difference of the logits of ONNX Runtime and PyTorch on standard normal noise, on the CPU.

    Args:
        file: the ONNX file.
        network: float32, in eval mode.
        shapes: each (B, C, spatial).

    Returns:
        The difference, NaN if one of the two has NaN.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    differences = []
    for shape in shapes:
        patch = torch.randn(shape, generator=generator)
        with torch.inference_mode():
            expected = network(patch).numpy()
        (logits,) = session.run([LOGITS], {IMAGE: patch.numpy()})
        differences.append(np.abs(logits - expected).max())
    return float(np.max(differences))


def _another_size(patch_size: list[int], factors: list[int] | None) -> list[int]:
    """Another spatial size than the patch's, small, for a comparison; the same if the network states no strides."""
    if factors is None:
        return list(patch_size)
    return [(3 if patch == 2 * factor else 2) * factor for patch, factor in zip(patch_size, factors, strict=True)]


def _tensor(
    name: str, channels: int, configuration: ConfigurationManager, dynamic: bool, factors: list[int] | None
) -> dict:
    description = {
        "name": name,
        "dtype": "float32",
        "axes": ["batch", "channel", *(f"spatial_{axis}" for axis in range(len(configuration.patch_size)))],
        "shape": ["any" if dynamic else 1, channels, *configuration.patch_size],
    }
    if factors is not None:
        description["shape"][2:] = [f"multiple of {factor}, at least {2 * factor}" for factor in factors]
    return description


def write_onnx(
    network: nn.Module, file: Path, shape: tuple[int, ...], dynamic: bool, factors: list[int] | None
) -> None:
    """Write a network for inputs of ``shape``, or ``dynamic``: any batch size and any multiple of ``factors``."""
    dynamic_shapes = None
    if dynamic:
        axes = {0: torch.export.Dim("batch")}
        shape = (2, *shape[1:])  # an axis of length 1 would be taken for a constant
        if factors is not None:
            for axis, factor in enumerate(factors, start=2):
                size = torch.export.Dim(f"bottleneck_{axis - 2}", min=2)
                axes[axis] = size if factor == 1 else factor * size
            shape = (*shape[:2], *(max(s, 2 * f) for s, f in zip(shape[2:], factors, strict=True)))
        dynamic_shapes = (axes,)
    weights = {tensor.data_ptr(): tensor.nbytes for tensor in network.state_dict().values()}
    torch.onnx.export(
        network,
        (torch.zeros(shape),),
        str(file),
        input_names=[IMAGE],
        output_names=[LOGITS],
        dynamic_shapes=dynamic_shapes,
        dynamo=True,
        external_data=sum(weights.values()) > ONE_FILE_LIMIT,
        optimize=True,  # PyTorch 2.6 does not by itself, and ONNX Runtime refuses some of what it then writes
        verbose=False,
    )
