"""The DICOM files of a result: segmentation, structured reports, secondary capture, de-identified copy of the scan.

highdicom takes more than a second to import: import `make_results` where DICOM results are written.
"""

SEGMENTATION, LESIONS, BSI = "segmentation.dcm", "lesions.dcm", "bsi.dcm"
SECOND_SEGMENTATION = "segmentation_2.dcm"
"""Of the other view, where the views are files of two series."""
CAPTURE, SCAN_COPY = "overlay.dcm", "scan.dcm"
