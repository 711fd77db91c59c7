"""What `predict` writes of a scan: result.json, masks, pictures, DICOM, Labelme outlines and a report."""
