"""What `prepare` says at its end."""

from types import SimpleNamespace

import pytest

from doubleunet_bs.preparation.summaries import gathered_warnings


@pytest.mark.parametrize(
    "texts, said",
    [
        ((["sums over 65535 are kept as 65535"],) * 3, {"sums over 65535 are kept as 65535": [0, 1, 2]}),
        (
            (["gain 21.5 is large"], ["gain 107 is large", "no spacing"], ["gain 9.25 is large"]),
            {"gain ... is large": [0, 1, 2], "no spacing": [1]},
        ),
        (
            (["sum to 998,120 counts"], ["sum to 3,001,596 counts", "sum to 1,000,001 counts"], []),
            {"sum to ... counts": [0, 1]},
        ),
        (([], [], []), {}),
    ],
)
def test_warnings_that_differ_in_numbers_are_one(texts, said):
    records = [SimpleNamespace(case=number, warnings=own) for number, own in enumerate(texts)]
    assert gathered_warnings(records) == said
