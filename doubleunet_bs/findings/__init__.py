"""What is found in one scan: lesions, foci, what has changed since the scan before, the Bone Scan Index."""
