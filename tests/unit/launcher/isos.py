"""ISO images as a reader that is not ours sees them."""

from io import BytesIO

import pycdlib


def read_iso(image: bytes, *, by: str = "rr_path") -> dict[str, bytes]:
    """The files of an image, by path: by Rock Ridge's names, or by those of `joliet_path` or `iso_path`."""
    iso = pycdlib.PyCdlib()
    iso.open_fp(BytesIO(image))
    files = {}
    for directory, _, names in iso.walk(**{by: "/"}):
        for name in names:
            path = f"{directory.rstrip('/')}/{name}"
            content = BytesIO()
            iso.get_file_from_iso_fp(content, **{by: path})
            files[path.lstrip("/")] = content.getvalue()
    assert iso.pvd.space_size * 2048 == len(image)
    iso.close()
    return files


def label_of(image: bytes) -> str:
    """The label of an image."""
    iso = pycdlib.PyCdlib()
    iso.open_fp(BytesIO(image))
    label: bytes = iso.pvd.volume_identifier
    iso.close()
    return label.decode().rstrip()
