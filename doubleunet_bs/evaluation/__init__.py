"""From a trained run to figures and pictures (paper, section 3)."""
