"""nnU-Net's fingerprint of a dataset with an ignore label, as if ignored voxels were background."""

from pathlib import Path

from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunet_skd.messages import first_line
from nnunet_skd.tools.cases import ImagesAndLabels, reader_class
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.files import remove_scratch, scratch_folder
from nnunet_skd.tools.images import read_segmentation, require_finite, require_whole, written_whole
from nnunet_skd.tools.parallel import for_each_case

BACKGROUND = 0
COPIES = ".nnunet_skd_fingerprint_"


def extract(
    name: str, description: dict, cases: ImagesAndLabels, ignore: int, preprocessed: Path, processes: int
) -> None:
    """Run nnU-Net's own extractor on copies of the labels in which ignored voxels are background.

    Args:
        name: the dataset's full name.
        description: its dataset.json.
        cases: its training cases, one or more.
        ignore: value of the ignore label.
        preprocessed: the dataset's folder in nnUNet_preprocessed, where nnU-Net writes the fingerprint, and no other
            run works.

    Raises:
        BadInput: an image or label cannot be read, or no voxel at all is annotated with a class.
    """
    reader = reader_class(description, next(iter(cases.values()))[0][0])
    remove_scratch(preprocessed, COPIES)
    with scratch_folder(preprocessed, COPIES) as folder:
        copies = {case: folder / f"{case}{description['file_ending']}" for case in cases}
        jobs = {case: (images, label, copies[case], ignore, reader) for case, (images, label) in cases.items()}
        if not any([has_class for _, has_class in for_each_case(_copy_label, jobs, processes, "Copying labels")]):
            raise BadInput(f"{name}: all voxels are background or ignored. Annotate some of a class")
        extractor = DatasetFingerprintExtractor(name, processes)
        extractor.dataset = {c: {"images": [*map(str, cases[c][0])], "label": str(copies[c])} for c in cases}
        try:
            extractor.run(overwrite_existing=True)
        except OSError:
            raise
        except Exception as error:  # what nnU-Net's readers make of unusual images
            raise BadInput(
                f"nnU-Net's fingerprint of {name} failed ({first_line(error)}). nnUNetv2_extract_fingerprint with "
                "--verify_dataset_integrity may name the case"
            ) from error


def _copy_label(images: list[Path], label: Path, copy: Path, ignore: int, reader: type[BaseReaderWriter]) -> bool:
    """Write a label with background in place of ignored voxels; returns whether any class is left."""
    for image in images:
        require_whole(image)
        require_finite(image)
    segmentation, properties = read_segmentation(reader, label)
    segmentation[segmentation == ignore] = BACKGROUND
    with written_whole(copy):
        reader().write_seg(segmentation[0], str(copy), properties)
    return bool((segmentation > BACKGROUND).any())
