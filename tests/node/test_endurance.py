"""The node against Orthanc, killed again and again: nothing is lost, nothing arrives twice."""

import pytest
from endurance import endure


@pytest.mark.slow
def test_kills_lose_and_double_nothing(tmp_path, trained_run, phantoms, record_property):
    """Of 12 studies 3 are no bone scan; Orthanc is away for a while, the node is killed four times."""
    pytest.importorskip("pynetdicom", reason="no DICOM network: the extra node is missing")
    paths = sorted(phantoms.glob("*.dcm"))
    figures = endure(tmp_path, paths, trained_run / "fold_01", studies=12, kills=4, senders=4, away=1.0)
    record_property("note", f"node against Orthanc: {figures}")
    assert (figures.lost, figures.duplicated, figures.answered) == (0, 0, 0)
    # Nine scans, three of them in two files; the foreign studies are accepted and set aside.
    assert figures.accepted == 15 and figures.kills == 4
    assert figures.refused == {"C000": 4}
