"""DICOM results of what is bright in a scan, for tests."""

import numpy as np
from dicom_variants import KINDS, VIEWS
from handmade_prediction import lesions_of, make_prediction, reported

from doubleunet_bs.dicom_files.sources import Source
from doubleunet_bs.dicom_results.make_results import dicom_results
from doubleunet_bs.dicom_results.source_study import read_source_study
from doubleunet_bs.results.overlay import overlay_picture, view_pictures
from doubleunet_bs.scans import read_scan

LEVEL = 60


def write_results(files, folder, identified: bool, level: int = LEVEL, drawn: bool = False):
    """Predict what is bright; returns the scan, and name -> path of the DICOM files.

    The secondary capture is a few grey pixels unless `drawn`.
    """
    scan = read_scan(files, allow_missing_view=True)
    prediction = make_prediction(scan, {view: getattr(scan, view) > level for view in VIEWS})
    picture = np.full((20, 10, 3), 128, np.uint8)
    if drawn:
        picture = overlay_picture(scan, prediction, lesions_of(scan, prediction), view_pictures(scan))
    study = read_source_study([Source(str(path)) for path in files]) if identified else None
    paths = {}
    folder.mkdir(parents=True, exist_ok=True)
    # A few: a report of all that is bright would take seconds.
    lesions = reported(scan, prediction)[:3]
    for name, content in dicom_results(scan, prediction, picture, lesions, study).items():
        paths[name] = folder / name
        paths[name].write_bytes(content)
    return scan, paths


CASES = [*((kind, LEVEL) for kind in KINDS), ("two-frames", 65535)]
