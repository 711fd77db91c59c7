"""What the processor can do in hardware, as Linux lists it."""

import re
from pathlib import Path

BFLOAT16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")
"""Flags of matrix arithmetic in bfloat16."""


def processor_flags(cpuinfo: str | Path = "/proc/cpuinfo") -> frozenset[str]:
    """Instruction sets of the processor; empty where that file does not exist."""
    try:
        text = Path(cpuinfo).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    found = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return frozenset(found.group(1).split()) if found else frozenset()


def bfloat16_instruction() -> str | None:
    """The flag by which the processor multiplies bfloat16 in hardware; None without one, or where nothing is said."""
    flags = processor_flags()
    return next((flag for flag in BFLOAT16_INSTRUCTIONS if flag in flags), None)
