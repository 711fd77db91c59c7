"""A file in a folder or an archive -> its header, the layout of its views, and their counts (paper, section 2.1)."""
