"""Predict cases with finished models by nnU-Net's predictor, in this process."""

import time
from pathlib import Path

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import nn
from tqdm import tqdm

from protocol import SLIDING_WINDOW


def predict(
    models: list[Path], images: dict[str, list[Path]], output: Path, *, mirroring: bool, probabilities: bool = False
) -> dict[str, float]:
    """Write one segmentation per case; several models are an ensemble, as nnU-Net makes one of its folds.

    Args:
        models: model folders with one fold each, with equal plans and configuration.
        images: each case's files, one per channel.
        output: folder for the segmentations; made if missing.
        mirroring: average over the axes that the training has mirrored.
        probabilities: write CASE.npz beside each segmentation, as nnUNetv2_predict --save_probabilities does.

    Returns:
        seconds per case: preprocessing, network, and resampling to the image; reading and writing are left out.
    """
    predictor = nnUNetPredictor(use_mirroring=mirroring, device=torch.device("cpu"), allow_tqdm=False, **SLIDING_WINDOW)
    weights = []
    for model in models:
        (fold,) = (folder.name.removeprefix("fold_") for folder in model.glob("fold_*"))
        predictor.initialize_from_trained_model_folder(str(model), (fold,))
        weights += predictor.list_of_parameters
    predictor.list_of_parameters = weights
    if any(isinstance(module, nn.Conv3d) for module in predictor.network.modules()):
        predictor.network.to(memory_format=torch.channels_last_3d)
    reader = predictor.plans_manager.image_reader_writer_class()
    ending = predictor.dataset_json["file_ending"]
    output.mkdir(parents=True, exist_ok=True)
    seconds = {}
    for case, files in tqdm(images.items(), desc=f"predict{' with mirroring' if mirroring else ''}", mininterval=10):
        image, properties = reader.read_images([str(file) for file in files])
        began = time.perf_counter()
        segmentation = predictor.predict_single_npy_array(image, properties, save_or_return_probabilities=probabilities)
        seconds[case] = time.perf_counter() - began
        if probabilities:
            segmentation, of_classes = segmentation
            np.savez_compressed(output / f"{case}.npz", probabilities=of_classes)
        reader.write_seg(segmentation, str(output / f"{case}{ending}"), properties)
    return seconds
