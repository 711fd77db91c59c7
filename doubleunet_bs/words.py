"""Numbers in sentences."""


def counted(number: int, noun: str) -> str:
    """ "1 scan", "2 scans": the number, and the noun with an s unless there is one."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
