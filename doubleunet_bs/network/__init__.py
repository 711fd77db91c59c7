"""The Double U-Net and its losses. Imports Keras only, so any Keras backend can run it (paper, sections 2.9 and 2.10)."""

from doubleunet_bs.network.double_unet import double_unet

__all__ = ["double_unet"]
