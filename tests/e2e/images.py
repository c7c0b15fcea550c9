"""Disk images for tests, without a tool to make them."""
import struct

CLUSTER = 65536


def make_qcow2(path, size):
    """An empty image, version 3. Of at most 512 MiB: that is what one L2 table is for."""
    assert size <= 512 << 20
    header = struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, 16, size, 0, 1, 3 * CLUSTER, CLUSTER, 1, 0, 0,
                         0, 0, 0, 4, 104)
    with open(path, "wb") as file:
        file.write(header)
        file.seek(CLUSTER)
        file.write(struct.pack(">Q", 2 * CLUSTER))  # the table of reference counts
        file.seek(2 * CLUSTER)
        file.write(struct.pack(">4H", 1, 1, 1, 1))  # header, table, this block, L1 table
        file.truncate(4 * CLUSTER)


def most_bytes(size):
    """How long such an image may become: data, an L2 table, what it began with, and a mebibyte."""
    return size + 5 * CLUSTER + (1 << 20)
