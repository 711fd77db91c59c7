"""What `prepare` says at its end."""

from types import SimpleNamespace

import pytest

from doubleunet_bs.preparation.cohort import gathered_warnings


@pytest.mark.parametrize(
    "texts, said",
    [
        ((["sums over 65535 are kept as 65535"],) * 3, {"sums over ... are kept as ...": 3}),
        (
            (["gain 21.5 is large"], ["gain 107 is large", "no spacing"], ["gain 9.25 is large"]),
            {"gain ... is large": 3, "no spacing": 1},
        ),
        (
            (["sum to 998,120 counts"], ["sum to 3,001,596 counts", "sum to 1,000,001 counts"], []),
            {"sum to ... counts": 2},
        ),
        (([], [], []), {}),
    ],
)
def test_warnings_that_differ_in_numbers_are_one(texts, said):
    assert gathered_warnings([SimpleNamespace(warnings=own) for own in texts]) == said
