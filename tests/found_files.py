"""What `find_scans` found, for tests, and files of one view to find."""

from dicom_headers import ge_millennium


def millennium(view, study="1", series="1", number=None, **elements):
    """A one-view file of its own instance."""
    dataset = ge_millennium(view)
    number = number or f"{study}.{series}.{('anterior', 'posterior').index(view)}"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"1.3.{study}", f"1.4.{study}.{series}"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def reasons(found) -> dict[str, str]:
    return {file.path: file.reason for file in found.rejected}


def kinds(found) -> dict[str, str]:
    return {file.path: file.kind for file in found.passed_over}
