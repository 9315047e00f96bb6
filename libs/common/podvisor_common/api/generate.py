"""Writes charts/podvisor/crds/*.yaml from the API's types; with --check only says which files are stale."""

import argparse
import sys
from pathlib import Path

from podvisor_common.api.crds import all_crds
from podvisor_common.api.emit import to_yaml

_HEADER = "# Generated from libs/common/podvisor_common/api by `make generate`; do not edit.\n"
_DEFAULT_DIRECTORY = Path(__file__).parents[4] / "charts" / "podvisor" / "crds"


def generated_files() -> dict[str, str]:
    """File name and content of every definition."""
    return {f"{plural}.yaml": _HEADER + to_yaml(crd) for plural, crd in all_crds().items()}


def stale_files(directory: Path) -> list[Path]:
    """Files in `directory` that are missing, differ from what the types say, or are no longer generated."""
    wanted = generated_files()
    differing = [
        directory / name
        for name, content in wanted.items()
        if not (directory / name).is_file() or (directory / name).read_text() != content
    ]
    left_over = [path for path in directory.glob("*.yaml") if path.name not in wanted]
    return sorted(differing + left_over)


def main(arguments: list[str]) -> int:
    """Exit status 1 when --check finds a stale file."""
    parser = argparse.ArgumentParser(prog="podvisor_common.api.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, report stale files")
    parser.add_argument("--directory", type=Path, default=_DEFAULT_DIRECTORY)
    options = parser.parse_args(arguments)
    stale = stale_files(options.directory)
    if options.check:
        sys.stderr.writelines(f"stale: {path}; run `make generate`\n" for path in stale)
        return 1 if stale else 0
    options.directory.mkdir(parents=True, exist_ok=True)
    wanted = generated_files()
    for path in stale:
        if path.name in wanted:
            path.write_text(wanted[path.name])
        else:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
