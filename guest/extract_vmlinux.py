#!/usr/bin/env python3
"""Takes the ELF kernel out of an x86 bzImage: extract_vmlinux.py VMLINUZ OUTPUT

The payload's place is in the header of the Linux/x86 boot protocol (Documentation/arch/x86/boot.rst, 2.08 and later:
payload_offset, payload_length); its magic number tells how it is compressed.
"""
import gzip
import lzma
import os
import struct
import subprocess
import sys

# Sizes beyond this are taken for damage.
MAX_VMLINUX = 1 << 30


def fail(message):
    sys.exit(f"extract_vmlinux: {message}")


def filtered(command, data):
    try:
        done = subprocess.run(command, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    except FileNotFoundError:
        fail(f"{command[0]} is missing (scripts/setup installs it)")
    if done.returncode != 0:
        fail(f"{command[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def decompressed(payload):
    # All but gzip are followed by the uncompressed size in four bytes, which their tools take for damage.
    body = payload[:-4]
    if payload[:2] == b"\x1f\x8b":
        return gzip.decompress(payload)
    if payload[:6] == b"\xfd7zXZ\0":
        return lzma.decompress(body)
    if payload[:4] == b"\x28\xb5\x2f\xfd":
        return filtered(["zstd", "-dc"], body)
    if payload[:4] == b"\x02\x21\x4c\x18":
        return filtered(["lz4", "-dc"], body)
    if payload[:4] == b"\x7fELF":
        return payload
    return fail(f"unknown compression, magic {payload[:6].hex()}")


def main():
    if len(sys.argv) != 3:
        fail("usage: extract_vmlinux.py VMLINUZ OUTPUT")
    with open(sys.argv[1], "rb") as file:
        image = file.read()
    if image[:4] == b"\x7fELF":
        kernel = image
    else:
        if len(image) < 0x260 or image[0x202:0x206] != b"HdrS":
            fail(f"{sys.argv[1]} is not a bzImage")
        version, = struct.unpack_from("<H", image, 0x206)
        if version < 0x208:
            fail(f"boot protocol {version >> 8}.{version & 255} has no payload_offset")
        setup_sectors = image[0x1F1] or 4
        offset, length = struct.unpack_from("<II", image, 0x248)
        start = (setup_sectors + 1) * 512 + offset
        if length < 8 or start + length > len(image):
            fail("payload_offset and payload_length lie outside the file")
        kernel = decompressed(image[start:start + length])
    if kernel[:4] != b"\x7fELF" or len(kernel) > MAX_VMLINUX:
        fail("the payload is not an ELF kernel")
    temporary = sys.argv[2] + ".part"
    with open(temporary, "wb") as file:
        file.write(kernel)
    os.replace(temporary, sys.argv[2])


main()
