"""nnU-Net's fingerprint of a dataset with an ignore label, as if nothing but background were ignored."""

from pathlib import Path

from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunet_skd.tools.cases import reader_class
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.files import scratch_folder
from nnunet_skd.tools.images import read_segmentation
from nnunet_skd.tools.parallel import for_each_case

BACKGROUND = 0


def extract(dataset_name: str, ignore: int, preprocessed: Path, processes: int) -> dict:
    """Let nnU-Net's own extractor see copies of the labels in which ignored voxels are background.

    Args:
        dataset_name: full name.
        ignore: value of the ignore label.
        preprocessed: the dataset's folder in nnUNet_preprocessed, where the fingerprint is written.

    Returns:
        the fingerprint.

    Raises:
        BadInput: a label cannot be read, or no voxel at all is annotated with a class.
    """
    extractor = DatasetFingerprintExtractor(dataset_name, processes)
    files = extractor.dataset
    reader = reader_class(extractor.dataset_json, next(iter(files.values()))["images"][0])
    with scratch_folder(preprocessed) as folder:
        jobs = {
            case: (Path(entry["label"]), folder / Path(entry["label"]).name, ignore, reader)
            for case, entry in files.items()
        }
        annotated = [has_class for _, has_class in for_each_case(_copy_label, jobs, processes, "labels")]
        if not any(annotated):
            raise BadInput(
                f"{dataset_name}: no voxel is annotated with a class, all are background or ignored. Annotate some"
            )
        for case, (_, copy, _, _) in jobs.items():
            files[case]["label"] = str(copy)
        return extractor.run(overwrite_existing=True)


def _copy_label(label: Path, copy: Path, ignore: int, reader: type[BaseReaderWriter]) -> bool:
    """Write a label with background in place of ignored voxels; returns whether any class is left."""
    segmentation, properties = read_segmentation(reader, label)
    segmentation[segmentation == ignore] = BACKGROUND
    reader().write_seg(segmentation[0], str(copy), properties)
    return bool((segmentation > BACKGROUND).any())
