#!/usr/bin/env python
"""`python train.py ...` is `doubleunet-bs train ...`; `python train.py --demo [DIR]` is `doubleunet-bs demo [DIR]`."""

import sys

from doubleunet_bs.__main__ import main

if __name__ == "__main__":
    arguments = sys.argv[1:]
    verb = "demo" if "--demo" in arguments else "train"
    sys.exit(main([verb, *(argument for argument in arguments if argument != "--demo")]))
