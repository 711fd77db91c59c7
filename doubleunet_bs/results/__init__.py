"""What `predict` writes of a scan: result.json, masks, pictures, Labelme outlines and a report."""
