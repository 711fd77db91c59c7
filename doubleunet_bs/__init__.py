"""Bone-metastasis segmentation on whole-body bone scans with a Double U-Net.

Importing this package is cheap: TensorFlow, Keras and pydicom are imported by the module that needs them.
"""

__version__ = "0.1.0"
