"""A scan for the tests of DICOM results."""

import pytest


@pytest.fixture(scope="module")
def phantom(phantoms):
    return phantoms / "phantom_0001.dcm"
