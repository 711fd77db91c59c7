"""Public data sets in miniature: the folders as they come out of the archives, with phantoms for patients.

With the traps of the real ones: a patient under two numbers, a picture that does not open, views that differ in class,
views without a mask, endings in capitals, lines that end with CR LF, folders that are not needed.
"""

import csv
import dataclasses
import functools
import hashlib
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from doubleunet_bs.__main__ import main
from doubleunet_bs.phantom import make_phantom
from doubleunet_bs.preparation import open_shards
from doubleunet_bs.preparation.public_labels import COLOURS
from doubleunet_bs.preparation.records import CaseRecord
from doubleunet_bs.scans.pseudonyms import Pseudonyms

VIEWS = ("anterior", "posterior")
FOLDERS = {"anterior": "wholeBodyANT", "posterior": "wholeBodyPOST"}


@dataclasses.dataclass(frozen=True)
class Patient:
    """One number of the data set.

    Attributes:
        number, part: of the published split.
        classes: 0 or 1 of each view in the tables.
        malignant: views whose mask has malignant pixels.
        like: the number of another patient whose very pictures these are.
    """

    number: int
    part: str
    classes: tuple[int, int] = (1, 1)
    malignant: tuple[str, ...] = VIEWS
    like: int | None = None


PATIENTS = (
    *(Patient(number, "train") for number in (1, 2)),
    Patient(3, "train", (1, 0), ("anterior",)),
    Patient(4, "train", (0, 0), ()),
    Patient(5, "train", (1, 1), ()),
    Patient(6, "validation"),
    Patient(7, "validation", (0, 0), ()),
    *(Patient(number, "test") for number in (8, 9)),
    Patient(10, "test", (0, 0), ()),
    Patient(11, "unused", (0, 0), ()),
    Patient(312, "train"),
    Patient(570, "test"),
    Patient(722, "train"),
    Patient(828, "test"),
    Patient(1240, "train"),
    Patient(2244, "validation", like=828),
)


@functools.cache
def _phantom():
    return make_phantom(0, 0)


@functools.cache
def grey(number: int, view: str) -> np.ndarray:
    """uint8 (1024, 256): the phantom as a faster scan of it would show, another one for each number."""
    random = np.random.default_rng(number)
    counts = random.binomial(getattr(_phantom(), view), 0.5 + 0.4 * random.random())
    return np.minimum(counts * (250 / np.quantile(counts, 0.9995)), 254).astype(np.uint8)


def mask(patient: Patient, view: str) -> np.ndarray:
    """uint8 (1024, 256): 1 benign, 2 malignant. Some is benign where something is drawn at all."""
    drawn = _phantom().lesions[view].copy() if view in patient.malignant else np.zeros((1024, 256), np.uint8)
    drawn[300:306, 120:126] = np.maximum(drawn[300:306, 120:126], 1)
    return drawn


def write_pictures(root: Path, patients=PATIENTS) -> Path:
    """The pictures of BS-80K, below a folder of the archive's own."""
    top = root / "BS-80K"
    (top / "headANT").mkdir(parents=True)
    (top / "headANT" / "1.jpg").write_bytes(b"no scan")
    for place, view in enumerate(VIEWS):
        folder = top / FOLDERS[view]
        folder.mkdir()
        for patient in patients:
            path = folder / (f"{patient.number}.JPG" if patient.number == 2 else f"{patient.number}.jpg")
            Image.fromarray(grey(patient.like or patient.number, view)).save(path, quality=95, format="JPEG")
            if patient.number == 722:
                path.write_bytes(path.read_bytes()[:500])
        lines = [f"{patient.number}.jpg\t{patient.classes[place]}" for patient in patients]
        boxes = folder / {"anterior": "ant", "posterior": "post"}[view]
        boxes.mkdir()
        for patient in patients:
            # The table calls the picture of patient 4 normal, and it has no file of boxes.
            if patient.number != 4:
                (boxes / f"{patient.number}.xml").write_text(_voc(mask(patient, view)))
        (folder / f"{FOLDERS[view]}.txt").write_bytes(("\r\n".join(lines) + "\r\n").encode())
    return root


def _voc(drawn: np.ndarray) -> str:
    """Boxes around the hot spots of a mask, a few pixels wider than they are."""
    text = "<annotation><size><width>256</width><height>1024</height></size>"
    for value, name in ((1, "Normal"), (2, "Abnormal")):
        for rows, columns in ndimage.find_objects(ndimage.label(drawn == value)[0]):
            sides = (columns.start - 3, rows.start - 3, columns.stop + 3, rows.stop + 3)
            tags = "".join(
                f"<{tag}>{side}</{tag}>" for tag, side in zip(("xmin", "ymin", "xmax", "ymax"), sides, strict=True)
            )
            text += f"\r\n<object><name>{name}</name><bndbox>{tags}</bndbox></object>"
    return text + "</annotation>"


def write_masks(root: Path, patients=PATIENTS) -> Path:
    """The masks for BS-80K."""
    rows = []
    for patient in patients:
        name = f"patient_{patient.number:05d}"
        for kind in ("hotspot_masks", "skeleton_masks"):
            for view, said in zip(VIEWS, patient.classes, strict=True):
                # A view without a box has no mask of hot spots.
                if kind == "hotspot_masks" and (patient.part == "unused" or (not said and patient.number == 3)):
                    continue
                ending = "PNG" if patient.number == 2 else "png"
                path = root / kind / name / f"study_{patient.number}" / f"{view}.{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask(patient, view)).save(path, format="PNG")
                data = path.read_bytes()
                file = path.relative_to(root).as_posix().replace(".PNG", ".png")
                source = "manual" if patient.number == 1 else "thresholded"
                digest = hashlib.sha256(data).hexdigest()
                rows.append((kind, name, path.parent.name, view, file, source, patient.part, digest, len(data)))
    with open(root / "manifest.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(
            ["mask_set", "patient_id", "study_id", "view", "file", "source", "split", "sha256", "size_bytes"]
        )
        writer.writerows(rows)
    digest = hashlib.sha256((root / "manifest.csv").read_bytes()).hexdigest()
    (root / "SHA256SUMS.txt").write_text(f"{digest}  manifest.csv\n")
    return root


def write_skeletons(root: Path, patients=PATIENTS) -> Path:
    """The skeletons for BS-80K: index masks, coloured ones beside them, and splits that differ between the views.

    Patient 11 has one view, 3 trains in the anterior view and tests in the posterior one.
    """
    palette = np.zeros((256, 3), np.uint8)
    palette[1:13] = COLOURS
    for view in VIEWS:
        lists: dict[str, list[int]] = {"train": [], "val": [], "test": []}
        for kind in (view, f"{view}_colored"):
            (root / "masks" / kind).mkdir(parents=True)
        (root / "splits" / view).mkdir(parents=True)
        for patient in patients:
            part = {"validation": "val", "unused": "train"}.get(patient.part, patient.part)
            lists["test" if (patient.number, view) == (3, "posterior") else part].append(patient.number)
            if (patient.number, view) == (11, "posterior"):
                continue
            drawn = np.zeros((1024, 256), np.uint8)
            for number in range(1, 13):
                if (number, view) != (5, "posterior"):
                    drawn[150 + 50 * number : 190 + 50 * number, 100:150] = number
            image = Image.fromarray(drawn)
            image.putpalette(palette.ravel().tolist())
            image.save(root / "masks" / view / f"{patient.number}.png")
            Image.fromarray(palette[drawn]).save(root / "masks" / f"{view}_colored" / f"{patient.number}.png")
        for name, numbers in lists.items():
            (root / "splits" / view / f"{name}.txt").write_bytes("\r\n".join(map(str, numbers)).encode())
    return root


WITH, WITHOUT = "Bone metastasis", "No_metastasis"


def write_paraguay(root: Path, traps: bool = True) -> Path:
    """Bone scans from Paraguay: 16-bit pictures in folders by the class of the patient and the view.

    Patients 1 to 3 have metastases, 4 to 8 have none. Traps: a picture without its partner, one that does not open,
    an ending in capitals, a folder of an unknown class, and files that are no pictures.
    """
    for number in range(1, 9):
        for view, letter in zip(VIEWS, "AP", strict=True):
            folder = root / "archive" / "images" / (WITH if number <= 3 else WITHOUT) / view.capitalize()
            folder.mkdir(parents=True, exist_ok=True)
            grey16 = (grey(number, view).astype(np.uint16) * 257).astype(np.uint16)
            path = folder / f"{letter}{number}.{'PNG' if number == 2 else 'png'}"
            Image.fromarray(grey16).save(path, format="PNG")
    images = root / "archive" / "images"
    (images / WITH / "Anterior" / "Thumbs.db").write_bytes(b"no picture")
    if traps:
        (images / WITH / "Posterior" / "P3.png").unlink()
        damaged = images / WITHOUT / "Anterior" / "A4.png"
        damaged.write_bytes(damaged.read_bytes()[:2000])
        for view, letter in zip(VIEWS, "AP", strict=True):
            (images / "Metastasis-free" / view.capitalize()).mkdir(parents=True)
            Image.fromarray(grey(9, view)).save(images / "Metastasis-free" / view.capitalize() / f"{letter}9.png")
    return root


def prepare_masks(archives: tuple[Path, Path], out: Path, *options: str) -> int:
    """The exit code of `prepare --dataset bs80k-masks` on folders of pictures and masks."""
    pictures, masks = archives
    return main(
        ["prepare", "--dataset", "bs80k-masks", "--scans", str(pictures), "--labels", str(masks), "--out", str(out),
         "--bin", "4", *options]
    )  # fmt: skip


def by_number(shards: Path) -> dict[int, CaseRecord]:
    """Number of a patient -> the record of the case."""
    files = Pseudonyms.open(shards.parent / "shards.identities.json").files
    records = {record.case: record for record in open_shards(shards).cases}
    return {int(Path(paths[0]).stem.lstrip("AP")): records[case] for case, paths in files.items()}
