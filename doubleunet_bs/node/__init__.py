"""A DICOM node: receives bone scans, segments them, and sends the results on (`doubleunet-bs node`)."""
