"""Colours of the pictures, from the palette of Okabe and Ito: told apart with any colour vision, also side by side."""

TRUE_POSITIVE = (0, 158, 115)
FALSE_POSITIVE = (213, 94, 0)
FALSE_NEGATIVE = (0, 90, 200)
TRUTH = (170, 51, 119)
