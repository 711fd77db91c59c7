"""The Double U-Net and its losses (paper, sections 2.9 and 2.10). Imports Keras only: any Keras backend can run it."""

from doubleunet_bs.network.double_unet import double_unet

__all__ = ["double_unet"]
