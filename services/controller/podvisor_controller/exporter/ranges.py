"""Which bytes of a file a request asks for (RFC 9110, 13 and 14), so that a download that was broken off can go on. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)")
# No number of bytes is longer; a longer one would only cost time.
_MOST_DIGITS = 19


@dataclass(frozen=True, slots=True)
class Selection:
    """The answer's status, the bytes from `start` on before `stop`, and the headers that go with them."""

    status: int
    start: int
    stop: int
    headers: dict[str, str]


def select(headers: Mapping[str, str], size_bytes: int, etag: str) -> Selection:
    """What to answer with. A range of another form than `bytes=FROM-TO` is ignored, as is one of what the file was before."""
    common = {"Accept-Ranges": "bytes", "ETag": etag}
    whole = Selection(200, 0, size_bytes, common)
    match = _RANGE.fullmatch(headers.get("Range", "").replace(" ", ""))
    if match is None or headers.get("If-Range", etag) != etag:
        return whole
    first, last = match.groups()
    if not (first or last) or len(first) > _MOST_DIGITS or len(last) > _MOST_DIGITS:
        return whole
    if first:
        start = int(first)
        stop = min(int(last) + 1, size_bytes) if last else size_bytes
        if last and int(last) < start:
            return whole
    else:
        start, stop = max(size_bytes - int(last), 0), size_bytes
    if start >= stop:
        return Selection(416, 0, 0, common | {"Content-Range": f"bytes */{size_bytes}"})
    content_range = f"bytes {start}-{stop - 1}/{size_bytes}"
    return Selection(206, start, stop, common | {"Content-Range": content_range})
