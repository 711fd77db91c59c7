#!/usr/bin/env python
"""`python evaluate.py ...` is `doubleunet-bs evaluate ...`."""

import sys

from doubleunet_bs.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
