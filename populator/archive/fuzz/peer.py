"""Prints how Python's tarfile reads archives, a line for each entry: PATH, a tab, KIND SIZE NAME TARGET
CONTENT (the last three in hexadecimal). PATH and a tab alone for an archive that it takes. An archive
that it does not take, or is known to read in another way, is left out:

- it puts a prefix before names in headers of any dialect, whatever stands there in theirs;
- it takes a `ustar` of any version, and star's, for its own;
- it passes over the data that a link or a device claims to have if its type is unknown to it, and of
  lists of names (GNU's incremental archives), volume labels and the like it makes files;
- it decodes PAX values as UTF-8 or not, by hdrcharset;
- it knows no empty PAX value, which takes back one from before;
- it believes libarchive's name of a sparse file, which may lack directories, before its path;
- in a field for a number it reads nothing after a NUL.
"""

import io
import sys
import tarfile

KINDS = {b"0": "-", b"\0": "-", b"7": "-", b"S": "-", b"1": "h", b"2": "l", b"3": "c", b"4": "b", b"5": "d", b"6": "p"}
EXPANDED_MAX = 1 << 20


class Skipped(Exception):
    pass


class Info(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf, encoding, errors):
        if len(buf) == 512 and any(buf):
            marked = buf[257:265] == b"ustar\x0000"
            if not marked and any(buf[345:500]) and buf[156:157] not in b"LKS":
                raise Skipped
            if buf[257:262] == b"ustar" and not marked and buf[257:265] != b"ustar  \0":
                raise Skipped
            if buf[508:512] == b"tar\0":
                raise Skipped
        return super().frombuf(buf, encoding, errors)


def encoded(name):
    return name.encode("utf-8", "surrogateescape")


def entries(data):
    archive = open_archive(data)
    lines = []
    while True:
        archive.fileobj.seek(archive.offset)
        try:
            info = Info.fromtarfile(archive)
        except tarfile.EOFHeaderError:
            return lines
        kind = KINDS.get(info.type)
        if kind is None or "hdrcharset" in info.pax_headers:
            raise Skipped
        path = info.pax_headers.get("path", "GNUSparseFile.")
        if "GNU.sparse.name" in info.pax_headers and "GNUSparseFile." not in path:
            raise Skipped
        if any(value == "" for value in info.pax_headers.values()):
            raise Skipped
        name, target, size, content = encoded(info.name), b"", 0, b""
        if kind == "-" and info.type != b"S" and not info.sparse and name.endswith(b"/"):
            kind = "d"
        if kind in "lh":
            target = encoded(info.linkname)
        if kind == "-":
            size = info.size
            if size <= EXPANDED_MAX:
                with archive.extractfile(info) as file:
                    content = file.read()
                if len(content) != size:
                    raise Skipped
        shown = content.hex() if size <= EXPANDED_MAX else "?"
        while len(name) > 1 and name.endswith(b"/"):
            name = name[:-1]
        lines.append(f"{kind} {size} {name.hex()} {target.hex()} {shown}")


def open_archive(data):
    # Opened as if to write, it reads nothing by itself.
    archive = tarfile.TarFile(fileobj=io.BytesIO(), mode="w", encoding="utf-8", errors="surrogateescape")
    archive.fileobj = io.BytesIO(data)
    archive.mode = archive._mode = "r"
    archive.offset = 0
    return archive


for path in sys.argv[1:]:
    with open(path, "rb") as file:
        data = file.read()
    try:
        lines = entries(data)
    except Exception:
        continue
    print(f"{path}\t")
    for line in lines:
        print(f"{path}\t{line}")
