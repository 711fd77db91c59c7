"""Patients and cameras beyond the usual ranges: for networks that must not learn one posture, build or camera by heart.

The usual ranges (`patient.draw_patient`, `camera.draw_acquisition`) keep a cohort inside bands measured on real scans.
Here they are widened on purpose.
"""

import dataclasses

import numpy as np

from doubleunet_bs.phantom.camera import COLUMNS, ROWS, Acquisition
from doubleunet_bs.phantom.patient import Patient

BODY_ROWS = (600, 890)
MOST_FAT = 1.5
"""Obese: 50 cm wide at the hips. 1 is the most of the usual range."""


def vary_patient(rng: np.random.Generator, patient: Patient) -> Patient:
    """The same patient with another build and posture, and other uptake of bones and soft tissue."""
    regions: dict[str, float] = {}
    uptake = {}
    for name, value in patient.uptake.items():
        stem = name.split("_")[0]
        region = stem[0] if stem[0] in "CTL" and stem[1:].isdigit() else stem
        if region not in regions:
            regions[region] = float(np.exp(rng.normal(0, 0.30)))
        uptake[name] = value * regions[region] * float(np.exp(rng.normal(0, 0.08)))
    joints = dict(patient.joints)
    arms = rng.uniform(0, 0.35)
    for side in "LR":
        joints[f"shoulder_{side}"] += float(arms * rng.uniform(0.6, 1.2))
        # Forearms beside the body, or laid on the belly.
        joints[f"elbow_{side}"] -= float(rng.uniform(0.5, 1.0) if rng.random() < 0.25 else arms * rng.uniform(0, 1.5))
        joints[f"wrist_{side}"] += float(rng.normal(0, 0.15))
        joints[f"hip_{side}"] += float(rng.uniform(-0.05, 0.08))
        joints[f"knee_{side}"] += float(rng.normal(0, 0.04))
    amplitude, phase, period = patient.scoliosis
    return dataclasses.replace(
        patient,
        fat=float(rng.uniform(-0.4, MOST_FAT)),
        lengths=patient.lengths * rng.uniform(0.9, 1.08) * np.exp(rng.normal(0, 0.05, len(patient.lengths))),
        width=float(patient.width * rng.uniform(0.9, 1.2)),
        depth=float(patient.depth * rng.uniform(0.9, 1.2)),
        scoliosis=(amplitude * float(rng.uniform(1, 2.5)), phase, period),
        kyphosis=float(patient.kyphosis * rng.uniform(0.5, 1.6)),
        head=(float(rng.normal(0, 0.12)), float(rng.normal(0, 0.30))),
        joints=joints,
        uptake=uptake,
        soft_tissue=float(patient.soft_tissue * np.exp(rng.uniform(np.log(0.7), np.log(3.0)))),
    )


def vary_acquisition(rng: np.random.Generator, acquisition: Acquisition, height_cm: float) -> Acquisition:
    """The same settings with another pixel size, place, field of view, scan length, resolution, counts and noise.

    Args:
        rng: random numbers. acquisition: as drawn.
        height_cm: from vertex to toes.
    """
    spacing = float(np.clip(height_cm * 10 / rng.uniform(*BODY_ROWS), 1.8, 3.0))
    rows = height_cm * 10 / spacing
    top = float(rng.uniform(20, max(21.0, ROWS - rows - 20)))
    half = min(COLUMNS / 2, rng.uniform(430, 600) / spacing / 2)
    left = int(round(COLUMNS / 2 - half))
    end = rows + rng.uniform(5, 60)
    if rng.random() < 0.25:
        end = rows * rng.uniform(0.62, 1.0)  # the table stops at the knees or shanks
    counts = float(np.exp(rng.uniform(np.log(0.25e6), np.log(4e6))))
    camera = dataclasses.replace(
        acquisition.camera,
        spacing_mm=spacing,
        top_row=top,
        middle_column=float(COLUMNS / 2 - 0.5 + rng.normal(0, 6)),
        field_columns=(left, COLUMNS - left),
        field_rows=(int(max(0, top - rng.uniform(5, 60))), int(min(ROWS, top + end))),
        blur=float(rng.uniform(0.8, 1.6)),
    )
    return dataclasses.replace(
        acquisition,
        camera=camera,
        counts=counts,
        posterior_share=float(rng.uniform(0.7, 1.2)),
        background=float(0.05 + 0.3 * (counts / 3e6) * rng.uniform(0, 2)),
    )
