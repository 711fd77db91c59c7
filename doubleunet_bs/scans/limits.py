"""How much of a file is believed before it is looked at (decided here).

A whole-body scan is 1 MB, in the finest matrix we read 8 MB. The limits leave room for the odd large private
element and keep the memory of one reading process under 1 GB whatever a header claims.
"""

MEBIBYTE = 1024 * 1024

# A file, an archive member or an inflated data set larger than this is not a whole-body scan.
MAX_FILE_BYTES = 64 * MEBIBYTE

# Everything before the pixel data. Real headers are under 100 KB; eight bytes can be an element of its own to parse.
MAX_HEADER_BYTES = MEBIBYTE

# Items of sequences in a header: eight bytes in the file become a Python object of more than one KB.
MAX_HEADER_ITEMS = 20_000

# Decoded pixels of one file: two 2048 x 512 frames of 64 bits are 16 MB.
MAX_PIXEL_BYTES = 16 * MEBIBYTE

# Fragments of compressed pixel data. Real files have one per frame.
MAX_FRAGMENTS = 10_000

# A zip archive: its table of contents, its members together, and how far a member may be compressed.
MAX_ARCHIVE_DIRECTORY_BYTES = 16 * MEBIBYTE
MAX_ARCHIVE_MEMBERS = 50_000
MAX_ARCHIVE_BYTES = 64 * 1024 * MEBIBYTE
MAX_ARCHIVE_RATIO = 200

# One compressed frame, decoded in a process of its own.
DECODER_SECONDS = 30
DECODER_BYTES = 1024 * MEBIBYTE
