"""Precision and recall of matching the areas of the two views, on phantoms, which know the lesion of each area.

    python tests/benchmarks/match_foci.py [--patients 80] [--model RUN/fold_01]

Areas are the true outlines of unseen phantoms, or with --model what that model predicts of them. A pair is right when
both areas show the same metastasis. Precision: right pairs of all pairs with a metastasis in one of the areas. Recall:
right pairs of all that can be made, each area at most once. Only a check of the software: phantoms are no patients.
"""

import argparse
from unittest import mock

import numpy as np
from measuring import print_environment
from scipy.optimize import linear_sum_assignment

SEED = 1500


def phantom_with_outlines(index: int):
    """A phantom, and view -> for each metastasis a bool (1024, 256) outline in raw pixels, empty where not seen."""
    from doubleunet_bs.constants import VIEWS
    from doubleunet_bs.phantom import scan as module

    kept = []

    def annotate(patches, expected, scales):
        kept[:] = [patches, expected, scales]
        return real(patches, expected, scales)

    real = module._annotate
    with mock.patch.object(module, "_annotate", annotate):
        phantom = module.make_phantom(SEED, index, ("breast", "prostate")[index % 2], metastatic=True)
    patches, expected, scales = kept
    outlines = {view: [] for view in VIEWS}
    for _, patch in patches:
        for number, (view, image) in enumerate(zip(VIEWS, patch.views, strict=True)):
            outline = np.zeros((1024, 256), bool)
            signal = image * np.float32(scales[number])
            outline[patch.box] = module.visible_outline(signal, expected[number][patch.box])
            outlines[view].append(outline if view == "anterior" else outline[:, ::-1])
    return phantom, outlines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=80)
    parser.add_argument("--model", help="a trained fold with its saved_model")
    args = parser.parse_args()
    import tempfile
    from pathlib import Path

    from doubleunet_bs.constants import VIEWS
    from doubleunet_bs.findings.lesion_list import PredictedLesion, find_areas
    from doubleunet_bs.findings.matching import find_foci
    from doubleunet_bs.inference import Predictor
    from doubleunet_bs.phantom.dicom import write_dicom
    from doubleunet_bs.scans import read_scan

    predictor = Predictor(args.model) if args.model else None
    areas = made = right = possible = 0
    for index in range(args.patients):
        phantom, outlines = phantom_with_outlines(index)
        masks = {view: (phantom.lesions[view] > 0).astype(np.uint8) for view in VIEWS}
        if predictor:
            with tempfile.TemporaryDirectory() as folder:
                write_dicom(phantom, Path(folder) / "scan.dcm")
                masks = predictor.predict(read_scan(Path(folder) / "scan.dcm")).masks
        lesions, shown = [], {}
        for view in VIEWS:
            for area in find_areas(masks[view]):
                box = (area.first_row, area.last_row, area.first_column, area.last_column)
                size = int(area.inside.sum())
                number = len(lesions) + 1
                lesions.append(
                    PredictedLesion(number, view, area.row, area.column, *box, size, None, 1.0, 1.0, size, 1)
                )
                shown[number] = {each for each, one in enumerate(outlines[view]) if (one[area.box] & area.inside).any()}
        areas += len(lesions)
        for focus in find_foci(lesions, phantom.pixel_spacing_mm):
            if focus.anterior and focus.posterior and shown[focus.anterior] | shown[focus.posterior]:
                made += 1
                right += bool(shown[focus.anterior] & shown[focus.posterior])
        sides = [[one.number for one in lesions if one.view == view] for view in VIEWS]
        same = np.array([[bool(shown[front] & shown[back]) for back in sides[1]] for front in sides[0]], float)
        if same.size:
            possible += int(same[linear_sum_assignment(-same)].sum())
    print_environment("numpy")
    print(f"{args.patients} phantoms, seed {SEED}, {areas} {'predicted' if predictor else 'true'} areas")
    print(
        f"precision {right / made:.1%} ({right} of {made} pairs), recall {right / possible:.1%} ({right} of {possible})"
    )


if __name__ == "__main__":
    main()
