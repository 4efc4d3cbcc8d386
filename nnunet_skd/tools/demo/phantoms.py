"""Phantom data sets in nnU-Net's raw format: drawn, not photographed, so they may be shipped, shown and shared.

Two kinds, both from a seed, with the exact mask:

* 2D, ``PhantomXA``: coronary angiograms. Attenuation is summed along the beam (body, heart, lung, ribs, diaphragm,
  spine, catheter, contrast medium in a tapering branching tree), blurred, and counted as photons (Beer-Lambert and
  Poisson). The mask is where the beam's pixel centre meets a vessel, within the field of view.
* 3D, ``PhantomCT``: abdominal CT in Hounsfield units with anisotropic voxels. Liver and spleen differ by less than the
  noise, vessels branch off the aorta into both.

They show that a pipeline works. They say nothing about how well a method does on patients.
"""

import shutil
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json
from scipy.interpolate import PchipInterpolator, make_interp_spline
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from skimage import io
from tqdm import tqdm

from nnunet_skd.tools.errors import BadInput

DEFAULT_SIZE = {2: (256, 256), 3: (40, 96, 96)}  # pixels (rows, columns); voxels (slices, rows, columns)
SMALLEST_SIZE = {2: 48, 3: 16}


def write_phantom_dataset(
    raw_folder,
    dataset_id: int,
    *,
    dim: int = 2,
    num_train: int = 16,
    num_test: int = 8,
    size: tuple[int, ...] | None = None,
    seed: int = 0,
    regions: bool = False,
    ignore_label: bool = False,
) -> Path:
    """Draw a data set into nnU-Net's raw format: imagesTr, labelsTr, imagesTs, labelsTs and dataset.json.

    The same arguments give the same bytes, and case i is the same whatever the number of cases.

    Args:
        raw_folder: the folder that nnUNet_raw names; made if missing.
        dataset_id: 1 to 999; the folder becomes DatasetXXX_PhantomXA (2D) or DatasetXXX_PhantomCT (3D).
        dim: 2 for angiograms (8 bit PNG), 3 for CT (NIfTI, HU).
        num_train: number of training cases.
        num_test: number of test cases, which have labels too (labelsTs).
        size: (rows, columns) or (slices, rows, columns); the anatomy scales with it. None: 256 x 256, 40 x 96 x 96.
        seed: of the random numbers.
        regions: 2D labels become side branches (1) and main vessel (2), dataset.json the overlapping regions tree = 1+2
            and main vessel = 2; 3D has the regions organs and vessels = 1+2+3, spleen = 2, vessel = 3.
        ignore_label: part of each training label is marked to be ignored; test labels stay complete.

    Returns:
        The data set's folder.

    Raises:
        BadInput: wrong dim, size or number; or raw_folder holds a data set of this number already.
    """
    _check(dim, size, dataset_id, num_train, num_test)
    raw_folder = Path(raw_folder)
    taken = sorted(raw_folder.glob(f"Dataset{dataset_id:03d}_*"))
    if taken:
        raise BadInput(f"{taken[0]} exists already. Choose another number than {dataset_id}, or remove that folder.")
    size = tuple(size or DEFAULT_SIZE[dim])
    draw, ending = (draw_angiogram, ".png") if dim == 2 else (draw_ct, ".nii.gz")
    labels = _labels(dim, regions, ignore_label)

    target = raw_folder / f"Dataset{dataset_id:03d}_Phantom{'XA' if dim == 2 else 'CT'}"
    raw_folder.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".phantoms_", dir=raw_folder))
    try:
        cases = [("Tr", i) for i in range(num_train)] + [("Ts", i) for i in range(num_test)]
        for split, index in tqdm(cases, desc="drawing phantoms", unit="case"):
            rng = np.random.default_rng([seed, dim, split == "Ts", index])
            image, label, spacing = draw(rng, size)
            if dim == 2 and not regions:
                label = np.minimum(label, 1)
            if ignore_label and split == "Tr":
                _hide_part(rng, label, ignore_value=labels["ignore"])
            case = f"{'train' if split == 'Tr' else 'test'}_{index:03d}"
            _save(unfinished / f"images{split}" / f"{case}_0000{ending}", image, spacing)
            _save(unfinished / f"labels{split}" / f"{case}{ending}", label, spacing)
        generate_dataset_json(
            str(unfinished),
            {0: "XA" if dim == 2 else "CT"},
            labels,
            num_train,
            ending,
            regions_class_order=_regions_class_order(dim) if regions else None,
            dataset_name=target.name,
            description=f"Phantoms drawn by nnunet_skd, seed {seed}. Not patients.",
            license="CC0-1.0",
            converted_by="nnunet_skd",
        )
        unfinished.chmod(0o755)  # mkdtemp gives 0700
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def _check(dim, size, dataset_id, num_train, num_test):
    if dim not in DEFAULT_SIZE:
        raise BadInput(f"dim must be 2 or 3, not {dim}.")
    if size is not None and (len(size) != dim or min(size) < SMALLEST_SIZE[dim]):
        raise BadInput(f"size {tuple(size)} must be {dim} numbers of at least {SMALLEST_SIZE[dim]} for dim {dim}.")
    if not 1 <= dataset_id <= 999:
        raise BadInput(f"dataset_id must be 1 to 999, not {dataset_id}.")
    if num_train < 1 or num_test < 0:
        raise BadInput(f"num_train must be at least 1 and num_test at least 0, not {num_train} and {num_test}.")


def _labels(dim, regions, ignore_label):
    if dim == 2:
        labels = {"tree": (1, 2), "main vessel": (2,)} if regions else {"vessel": 1}
        highest = 2 if regions else 1
    else:
        labels = {"organs and vessels": (1, 2, 3), "spleen": (2,), "vessel": (3,)}
        labels = labels if regions else {"liver": 1, "spleen": 2, "vessel": 3}
        highest = 3
    return {"background": 0} | labels | ({"ignore": highest + 1} if ignore_label else {})


def _regions_class_order(dim):
    return (1, 2) if dim == 2 else (1, 2, 3)


def _hide_part(rng, label, ignore_value):
    """Mark one box of half the edge length (a quarter of the area, an eighth of the volume) as not annotated."""
    starts = [rng.integers(0, n - n // 2 + 1) for n in label.shape]
    label[tuple(slice(start, start + n // 2) for start, n in zip(starts, label.shape, strict=True))] = ignore_value


def _save(path, array, spacing):
    path.parent.mkdir(exist_ok=True)
    if array.ndim == 2:
        io.imsave(path, array, check_contrast=False)
    else:  # NIfTI stores x, y, z; the patient lies on the back, x to the patient's left, y to the back, z to the head
        affine = np.diag([-spacing[2], -spacing[1], spacing[0], 1.0])
        nib.save(nib.Nifti1Image(array.transpose(2, 1, 0), affine), path)


# ---------------------------------------------------------------------------------------------------- vessel trees


def _smooth_noise(rng, n, width):
    """n samples of noise with unit variance and a correlation length of about ``width`` samples."""
    pad = int(4 * width) + 1
    noise = gaussian_filter1d(rng.standard_normal(n + 2 * pad), width)[pad : pad + n]
    return noise * np.sqrt(2 * np.sqrt(np.pi) * max(width, 0.3))


def _spline(points, step):
    """Points every ``step`` along a smooth curve through control points, shape (n, axes)."""
    points = np.asarray(points, float)
    chord = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    curve = make_interp_spline(chord, points, k=min(3, len(points) - 1))
    return curve(np.linspace(0, chord[-1], max(int(chord[-1] / step), 2)))


def _wander(rng, start, heading, length, tortuosity, turn, step):
    """A curve in the plane whose heading turns steadily by ``turn`` (rad) and wriggles by ``tortuosity`` (rad)."""
    n = max(int(length / step), 2)
    t = np.linspace(0, 1, n)
    wavelength = rng.uniform(0.05, 0.11) * length / step
    wriggle = tortuosity * _smooth_noise(rng, n, max(wavelength, 3.0)) * np.minimum(1, 3 * t)
    angle = heading + turn * t + wriggle
    return start + step * np.cumsum(np.stack([np.sin(angle), np.cos(angle)], axis=1), axis=0)


def _taper(rng, n, first, last):
    """Radii along a vessel: falling, slightly uneven, sometimes with one narrowing (a stenosis)."""
    t = np.linspace(0, 1, n)
    radii = PchipInterpolator([0, 0.5, 1], [first, (0.6 * first + 0.4 * last), last])(t)
    radii = radii * (1 + 0.06 * _smooth_noise(rng, n, n / 25))
    if rng.random() < 0.25:
        radii = radii * (1 - rng.uniform(0.2, 0.5) * np.exp(-(((t - rng.uniform(0.2, 0.6)) / 0.03) ** 2)))
    return np.maximum(radii, 0.8 * last)


def _main_vessels(rng, unit):
    """Centre-lines of the main vessels in units of the image width, (row, column); the first starts at the catheter.

    Right coronary artery: one vessel around the heart in a C. Left: a stem that divides into two long vessels.
    """

    def jitter(points, amount=0.032):
        return np.asarray(points) + np.concatenate([np.zeros((1, 2)), rng.normal(0, amount, (len(points) - 1, 2))])

    if rng.random() < 0.45:
        rows = [0.16, 0.11, 0.20, 0.42, 0.66, 0.77, 0.76, 0.83]
        columns = [0.60, 0.46, 0.29, 0.23, 0.26, 0.42, 0.62, 0.78]
        c = jitter(np.transpose([rows, columns]))
        lines, radii = [c], [(5.0, 1.5)]
    else:
        stem = jitter([(0.17, 0.14), (0.19, 0.22), (0.20, 0.31)], 0.01)
        lad = jitter([(0.20, 0.31), (0.22, 0.47), (0.30, 0.64), (0.46, 0.76), (0.64, 0.83), (0.80, 0.88)])
        lcx = jitter([(0.20, 0.31), (0.31, 0.36), (0.46, 0.34), (0.60, 0.41), (0.75, 0.40), (0.88, 0.47)])
        lad[0] = lcx[0] = stem[-1]
        lines, radii = [stem, lad, lcx], [(4.8, 4.3), (3.9, 1.2), (3.6, 1.2)]
    angle, scale = rng.uniform(-0.35, 0.35), rng.uniform(0.85, 1.08, (2, 1))  # another projection of the same anatomy
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = rng.normal(0, 0.03, 2) + 0.5
    return [(line - 0.5) @ turn.T + shift for line in lines], [(a * unit, b * unit) for a, b in radii]


def _coronary_tree(rng, size):
    """Vessels as (centre-line (n, 2) in pixels, radii (n,), level): level 0 for main vessels, 1.. for side branches."""
    unit = min(size) / 256  # all lengths below are pixels of a 256 x 256 image
    step = 0.5 * unit
    smallest = max(0.95 * unit, 0.8)
    vessels = []
    lines, radii = _main_vessels(rng, unit)
    for line, (first, last) in zip(lines, radii, strict=True):
        points = _spline(line * np.array(size), step)
        if len(points) > 160:  # all but the left stem run over a beating heart and are wavy
            ramp = np.sin(np.pi * np.linspace(0, 1, len(points))) ** 0.5
            waves = [_smooth_noise(rng, len(points), rng.uniform(14, 28)) for _ in range(2)]
            points = points + (2.2 * unit) * ramp[:, None] * np.stack(waves, axis=1)
        vessels.append((points, _taper(rng, len(points), first, max(last, smallest)), 0))

    queue = vessels[-2:] if len(vessels) == 3 else vessels[:]  # nothing leaves the left stem
    while queue:
        points, widths, level = queue.pop(0)
        if level >= 2:
            continue
        number = rng.integers(3, 6) if level == 0 else rng.integers(0, 3)
        places = np.sort(rng.uniform(0.12, 0.92, number))
        side = rng.choice([-1, 1])
        for place in places:
            at = int(place * (len(points) - 1))
            first = widths[at] * rng.uniform(0.45, 0.75)
            if first < smallest and level > 0:
                continue
            ahead = points[min(at + 12, len(points) - 1)] - points[max(at - 12, 0)]
            side = -side if rng.random() < 0.7 else side
            heading = np.arctan2(ahead[0], ahead[1]) + side * rng.uniform(0.5, 1.1)
            length = unit * rng.uniform(45, 120) * (0.6**level) * (1.15 - 0.5 * place)
            tortuosity = rng.choice([0.3, 0.55, 0.9], p=[0.4, 0.35, 0.25])
            line = _wander(rng, points[at], heading, length, tortuosity, -side * rng.uniform(0.1, 0.9), step)
            vessels.append((line, _taper(rng, len(line), max(first, smallest), smallest), level + 1))
            queue.append(vessels[-1])
    return vessels


def _path_length(points, radii, size):
    """Length of each pixel's beam inside a tube of round cross-section, in pixels, (rows, columns); 0 outside."""
    squared = np.zeros(size)  # of half the length
    for point, radius in zip(points, radii, strict=True):
        reach = int(radius) + 2
        corner = np.floor(point).astype(int) - reach
        low, high = np.maximum(corner, 0), np.minimum(corner + 2 * reach + 2, size)
        if np.any(low >= high):
            continue
        rows, columns = np.ogrid[low[0] : high[0], low[1] : high[1]]
        window = squared[low[0] : high[0], low[1] : high[1]]
        np.maximum(window, radius**2 - (rows - point[0]) ** 2 - (columns - point[1]) ** 2, out=window)
    return 2 * np.sqrt(squared)


# ------------------------------------------------------------------------------------------------------ angiograms


def draw_angiogram(rng: np.random.Generator, size: tuple[int, int]):
    """One coronary angiogram.

    Returns:
        image: (rows, columns), uint8.
        label: (rows, columns), uint8: 0 background, 1 side branches, 2 main vessels.
        spacing: (1.0, 1.0); PNG has none.
    """
    unit = min(size) / 256
    vessels = _coronary_tree(rng, size)
    contrast = np.zeros(size)
    label = np.zeros(size, np.uint8)
    rows, columns = np.indices(size)
    for points, radii, level in vessels:
        length = _path_length(points, radii, size)
        np.maximum(label, (length > 0) * np.uint8(2 if level == 0 else 1), out=label)
        # Vessels that cross lie behind each other (sum); where a branch leaves its parent both are one lumen (maximum).
        from_root = np.hypot(rows - points[0, 0], columns - points[0, 1])
        crossing = np.clip(from_root / (10 * unit) - 1, 0, 1)
        contrast = np.maximum(contrast, length) + crossing * np.minimum(contrast, length)
    medium = rng.uniform(0.035, 0.06) / unit * (1 + 0.12 * _field(rng, size, 40 * unit))

    iodine = np.maximum(medium * contrast, _catheter(rng, size, unit, vessels[0][0]))  # the tip lies inside the vessel
    attenuation = _body(rng, size, unit) + iodine
    attenuation = gaussian_filter(attenuation, rng.uniform(0.6, 0.9) * max(unit, 0.6))  # focal spot and motion
    photons = rng.uniform(800, 2500) * np.exp(-attenuation)
    counts = gaussian_filter(rng.poisson(photons).astype(float), 0.55)  # the detector's own blur makes noise grainy
    shown = -np.log(np.maximum(counts, 1.0) / photons.max())
    low, high = np.quantile(shown, [0.01, 0.995])
    dark, bright = rng.uniform(20, 50), rng.uniform(175, 235)
    image = bright - (shown - low) / (high - low) * (bright - dark)
    seen = _field_of_view(rng, size)
    image = np.where(seen, image, rng.uniform(8, 18))
    return np.clip(np.round(image), 0, 255).astype(np.uint8), np.where(seen, label, 0).astype(np.uint8), (1.0, 1.0)


def _field(rng, size, width):
    """A smooth random field of mean 0 and standard deviation 1."""
    field = gaussian_filter(rng.standard_normal(size), width, mode="reflect")
    return (field - field.mean()) / field.std()


def _step(distance, width):
    """0 to 1 over about ``width`` where a signed distance crosses 0: the edge of something with rounded sides."""
    return 0.5 * (1 + np.tanh(distance / width))


def _body(rng, size, unit):
    """Attenuation of everything but contrast medium and catheter."""
    rows, columns = np.indices(size, dtype=float)
    y, x = rows / size[0], columns / size[1]
    total = 0.09 * _field(rng, size, 50 * unit) + 0.03 * _field(rng, size, 14 * unit)
    total += 0.015 * _field(rng, size, [2 * unit, 5 * unit]) + 0.012 * _field(rng, size, [6 * unit, 1.5 * unit])

    # Lung is clear: beyond the heart's border the beam meets little.
    centre, side = rng.uniform(-0.1, 0.35), rng.choice([-1, 1])
    edge = (
        (x - 0.5) * side
        - centre
        + 0.45 * (y - 0.45) ** 2 * rng.uniform(0.3, 1.2)
        - rng.uniform(-0.25, 0.25) * (y - 0.5)
    )
    total -= rng.uniform(0.2, 0.5) * _step(edge - 0.12, 0.02) * (0.7 + 0.3 * y)

    # Diaphragm: a dome with a sharp upper edge, darker below it.
    if rng.random() < 0.7:
        top = rng.uniform(0.62, 0.9) + rng.uniform(0.3, 0.9) * (x - rng.uniform(0.0, 1.0)) ** 2
        total += rng.uniform(0.2, 0.45) * _step(y - top, 0.008) * (0.75 + 0.5 * np.clip(y - top, 0, 1))

    # Spine: a broad shadow with vertebrae.
    if rng.random() < 0.6:
        middle = rng.uniform(0.55, 1.0) if rng.random() < 0.5 else rng.uniform(0.0, 0.2)
        across = np.abs(x - middle - 0.06 * np.sin(2 * y + rng.uniform(0, 6)))
        vertebrae = 1 + 0.18 * np.tanh(3 * np.sin(2 * np.pi * y / rng.uniform(0.17, 0.22) + rng.uniform(0, 6)))
        total += rng.uniform(0.1, 0.22) * _step(0.11 - across, 0.03) * vertebrae

    # Ribs: arcs with a dense rim.
    slope, bend, gap = rng.uniform(-0.5, 0.5), rng.uniform(-0.6, 0.6), rng.uniform(0.2, 0.28)
    for k in range(-1, 6):
        line = y - (k + rng.uniform(-0.1, 0.1)) * gap - slope * (x - 0.5) - bend * (x - 0.5) ** 2
        half = rng.uniform(0.03, 0.045)
        rib = _step(half - np.abs(line), 0.006) + 0.5 * np.exp(-(((np.abs(line) - half + 0.006) / 0.007) ** 2))
        total += rng.uniform(0.02, 0.06) * rib
    return total - total.min() + 0.2


def _catheter(rng, size, unit, vessel):
    """A thin tube from the border to the vessel's origin; it carries contrast medium but is no vessel."""
    tip = vessel[0]
    backwards = tip - vessel[min(20, len(vessel) - 1)]
    backwards /= np.linalg.norm(backwards)
    outside = np.array([-0.12 * size[0], tip[1] + rng.uniform(-0.15, 0.15) * size[1]])
    between = tip + backwards * 14 * unit + np.array([-12 * unit, 0])
    line = _spline([tip, between, 0.5 * (between + outside) + rng.normal(0, 6 * unit, 2), outside], 0.5 * unit)
    radius = np.full(len(line), 2.2 * unit)
    outer, inner = _path_length(line, radius, size), _path_length(line, 0.65 * radius, size)
    return (0.09 * outer - rng.uniform(0.02, 0.06) * inner) / unit


def _field_of_view(rng, size):
    """True inside the image intensifier's circle; half of the images show its edge in a corner."""
    if rng.random() < 0.5:
        return np.ones(size, bool)
    rows, columns = np.indices(size, dtype=float)
    centre = rng.uniform(0.48, 0.66, 2) * size
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < (rng.uniform(0.62, 0.7) * max(size)) ** 2


# ------------------------------------------------------------------------------------------------------------- CT


def draw_ct(rng: np.random.Generator, size: tuple[int, int, int]):
    """One abdominal CT, in anatomical proportions whatever the number of voxels.

    Returns:
        image: (slices, rows, columns), int16, HU; slice 0 is the lowest, row 0 the front, column 0 the patient's right.
        label: same shape, uint8: 0 background, 1 liver, 2 spleen, 3 vessel.
        spacing: (slice, row, column) in mm; slices are thicker than pixels are wide.
    """
    extent = np.array([200.0, 250.0, 300.0]) * rng.uniform(0.95, 1.05)  # mm
    spacing = extent / size
    z, y, x = np.meshgrid(*[(np.arange(n) + 0.5) * s for n, s in zip(size, spacing, strict=True)], indexing="ij")
    z, y, x = z - extent[0] / 2, y - extent[1] / 2, x - extent[2] / 2  # mm from the middle: to head, to back, to left

    def bump(width):  # a smooth displacement in mm that gives every patient another shape
        return 6 * _field(rng, size, [width / s for s in spacing])

    def inside(centre, axes, shape):  # roughly the signed depth in mm in an ellipsoid with a bumpy surface
        squares = sum(((c - m) / a) ** 2 for c, m, a in zip((z, y, x), centre, axes, strict=True))
        return (1 - np.sqrt(squares)) * min(axes) + shape

    def around(value, amount):
        return np.asarray(value) + rng.normal(0, amount, len(value))

    body = inside((0, 0, 0), (1e4, 105, 135), 0)
    body_shape, texture = bump(40), bump(15) / 6
    hu = np.full(size, -1000.0)
    hu[body > 0] = -100  # fat
    hu[body + 0.3 * body_shape > 14 + 4 * np.abs(x) / 135] = 50  # muscle and bowel
    bowel = (body + 0.3 * body_shape > 32) & (texture > 0.4)
    hu[bowel] = -70  # fat between the organs
    hu[(body > 40) & (texture < -1.9) & (y < 20)] = -700  # gas

    liver_mm = inside(around((12, -8, -58), 5), around((72, 68, 62), 4), bump(35))
    liver_mm = np.maximum(liver_mm, inside(around((28, -38, -5), 5), (38, 36, 62), bump(30)))
    spleen_mm = inside(around((30, 38, 88), 5), around((44, 36, 22), 3), 0.6 * bump(25))
    room = (body > 22) & (np.hypot((y - 62) / 26, x / 28) > 1)  # neither ribs nor spine
    liver, spleen = (liver_mm > 0) & room, (spleen_mm > 0) & (liver_mm < -4) & room
    kidneys = [inside(around((-38, 42, side * 62), 4), (46, 24, 22), 0.4 * bump(20)) > 0 for side in (-1, 1)]
    for kidney in kidneys:
        hu[kidney & ~liver & ~spleen] = 165
    liver_hu = rng.uniform(95, 120)
    hu[liver] = liver_hu
    hu[spleen] = liver_hu + rng.uniform(8, 18)  # less than the noise

    vertebra = np.hypot((y - 62) / 22, x / 24) < 1
    disc = np.sin(2 * np.pi * z / 34 + rng.uniform(0, 6)) > 0.8
    hu[vertebra] = 230
    hu[vertebra & disc] = 90
    hu[vertebra & (np.hypot((y - 62) / 19, x / 21) > 1)] = 420
    hu[np.hypot((y - 88) / 9, x / 10) < 1] = 30  # spinal canal
    ring = np.abs(body - 17) < 4
    hu[ring & (np.sin(2 * np.pi * (z + 0.5 * y + 0.15 * np.abs(x)) / 32) > 0.55) & (y > -75)] = 330  # ribs

    vessel = np.zeros(size, bool)
    for line, radii in _abdominal_vessels(rng, extent, liver_mm, spleen_mm, spacing):
        _fill_tube(vessel, line, radii, spacing)
    hu[vessel] = rng.uniform(190, 240)

    blur = [0.4, 0.6, 0.6]  # voxels: slice profile and reconstruction kernel
    noise = gaussian_filter(rng.standard_normal(size), [0, 0.6, 0.6])
    image = gaussian_filter(hu + 4 * texture, blur) + rng.uniform(14, 22) * noise / noise.std()
    label = np.zeros(size, np.uint8)
    label[liver], label[spleen], label[vessel] = 1, 2, 3
    return np.clip(np.round(image), -1024, 3071).astype(np.int16), label, tuple(float(s) for s in spacing)


def _abdominal_vessels(rng, extent, liver_mm, spleen_mm, spacing):
    """Aorta, vena cava and branches: (centre-line (n, 3) in mm from the volume's corner, radii (n,) in mm)."""
    middle = extent / 2
    top, bottom = extent[0] * 0.52, -extent[0] * 0.52

    def tube(points, first, last):
        line = _spline(np.asarray(points, float) + middle, 1.0)
        return line, np.linspace(first, last, len(line))

    def wobble():
        return rng.normal(0, 4)

    vessels = [
        tube([(bottom, 28, 12 + wobble()), (0, 26, 10 + wobble()), (top, 30, 14 + wobble())], 9, 11),
        tube([(bottom, 24, -22 + wobble()), (0, 20, -24 + wobble()), (top, 12, -20 + wobble())], 10, 11),
    ]

    def deep(depth):  # a random place well inside an organ
        places = np.argwhere(depth > 0.45 * depth.max())
        return (places[rng.integers(len(places))] + 0.5) * spacing - middle

    celiac, hilum = np.array([8.0, 10, 8]), np.array([12.0, -2, -28])
    splenic = np.array([26.0, 34, 62])
    vessels.append(tube([(2, 24, 10), celiac, (14, 16, 36 + wobble()), splenic], 5, 4))
    vessels.append(tube([(-25, 4, 4), (-5, 0, -6), hilum], 6.5, 6))
    for root, depth, number, first in ((hilum, liver_mm, 5, 5.0), (splenic, spleen_mm, 2, 3.5)):
        for _ in range(number):
            goal = deep(depth)
            bend = 0.5 * (root + goal) + rng.normal(0, 7, 3)
            vessels.append(tube([root, bend, goal], first, 2.2))
            if first > 4:
                vessels.append(tube([bend, 0.5 * (bend + goal) + rng.normal(0, 9, 3), deep(depth)], 3.2, 2.0))
    return vessels


def _fill_tube(mask, line, radii, spacing):
    """Set the voxels of ``mask`` whose centre lies within ``radii`` of ``line``; all in mm."""
    for point, radius in zip(line, radii, strict=True):
        low = np.maximum(np.floor((point - radius) / spacing).astype(int), 0)
        high = np.minimum(np.ceil((point + radius) / spacing).astype(int) + 1, mask.shape)
        if np.any(low >= high):
            continue
        window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        axes = np.ogrid[window]
        squared = sum(((i + 0.5) * s - p) ** 2 for i, s, p in zip(axes, spacing, point, strict=True))
        mask[window] |= squared <= radius**2
