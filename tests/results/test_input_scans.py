"""Parts of a folder for several machines."""

import pytest

from doubleunet_bs.dicom_files.sources import Source
from doubleunet_bs.errors import SettingsError
from doubleunet_bs.results.input_scans import choose_shard, parse_shard
from doubleunet_bs.scans.scan_files import Rejection, ScanFiles, ScanFolder


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_parts_of_a_folder_hold_each_file_once(parts):
    one = [ScanFiles((Source(f"/f/{number}.dcm"),), "/f") for number in range(50)]
    pairs = [ScanFiles((Source(f"/f/{n}a.dcm"), Source(f"/f/{n}b.dcm")), "/f") for n in range(50)]
    found = ScanFolder((*one, *pairs), tuple(Rejection(f"/f/{number}", "cut", "is cut") for number in range(50)))
    shards = [choose_shard(found, (part, parts)) for part in range(1, parts + 1)]
    for what in ("scans", "rejected"):
        together = [item for shard in shards for item in getattr(shard, what)]
        assert len(together) == len(getattr(found, what)) and set(together) == set(getattr(found, what))
        assert all(getattr(shard, what) for shard in shards)
    # A file that comes later moves no other one.
    more = ScanFolder((ScanFiles((Source("/f/0000.dcm"),), "/f"), *found.scans), found.rejected)
    for part, shard in enumerate(shards, start=1):
        assert set(shard.scans) <= set(choose_shard(more, (part, parts)).scans)


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "1/0", "a/b", "1/2/3", "-1/3", "1.0/2"])
def test_parts_that_are_none(text):
    with pytest.raises(SettingsError, match="give PART/PARTS"):
        parse_shard(text)
