"""ELF kernels made by hand, sound or broken in one place."""
import struct

EM_386, EM_ARM, EM_X86_64, EM_AARCH64 = 3, 40, 62, 183
PT_LOAD, PT_NOTE = 1, 4
MIB = 1 << 20
CODE = b"\xf4\xeb\xfd"  # hlt; jmp back


def file_header(machine=EM_X86_64, headers=1, bits=64, kind=2):
    ident = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1, 1]) + bytes(9)
    if bits == 64:
        return ident + struct.pack("<HHIQQQIHHHHHH", kind, machine, 1, MIB, 64, 0, 0, 64, 56, headers, 0, 0, 0)
    return ident + struct.pack("<HHIIIIIHHHHHH", kind, machine, 1, MIB, 52, 0, 0, 52, 32, headers, 0, 0, 0)


def program_header(kind, offset, address, file_bytes, memory_bytes):
    return struct.pack("<IIQQQQQQ", kind, 7, offset, address, address, file_bytes, memory_bytes, 4)


def kernel(segments=None, entry=MIB, headers=None, note=True):
    """A 64-bit kernel. A segment is (address, bytes in the file, bytes in memory[, offset in the file])."""
    segments = [(MIB, 16, 4096)] if segments is None else segments
    notes = struct.pack("<III", 4, 4, 18) + b"Xen\0" + struct.pack("<I", entry & 0xffffffff) if note else b""
    count = len(segments) + 1
    start = 64 + 56 * count
    table = program_header(PT_NOTE, start, 0, len(notes), len(notes))
    for segment in segments:
        address, in_file, in_memory = segment[:3]
        offset = segment[3] if len(segment) > 3 else start + len(notes)
        table += program_header(PT_LOAD, offset, address, in_file, in_memory)
    return file_header(headers=count if headers is None else headers) + table + notes + CODE.ljust(8192, b"\0")
