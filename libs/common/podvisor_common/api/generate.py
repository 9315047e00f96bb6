"""Writes charts/podvisor/crds/*.yaml and docs/compatibility.md from the API's types; with --check only says which are stale."""

import argparse
import sys
from pathlib import Path

from podvisor_common.api.compatibility import compatibility_page
from podvisor_common.api.crds import all_crds
from podvisor_common.api.emit import to_yaml

_HEADER = "# Generated from libs/common/podvisor_common/api by `make generate`; do not edit.\n"
_CRDS = "charts/podvisor/crds"
_COMPATIBILITY = "docs/compatibility.md"
REPOSITORY = Path(__file__).parents[4]


def generated_files() -> dict[str, str]:
    """Content of every generated file, by its path in the repository."""
    files = {f"{_CRDS}/{plural}.yaml": _HEADER + to_yaml(crd) for plural, crd in all_crds().items()}
    return files | {_COMPATIBILITY: compatibility_page()}


def stale_files(root: Path) -> list[Path]:
    """Files under `root` that are missing, differ from what the types say, or are no longer generated."""
    wanted = {root / path: content for path, content in generated_files().items()}
    differing = [
        path
        for path, content in wanted.items()
        if not path.is_file() or path.read_text() != content
    ]
    left_over = [path for path in (root / _CRDS).glob("*.yaml") if path not in wanted]
    return sorted(differing + left_over)


def main(arguments: list[str]) -> int:
    """Exit status 1 when --check finds a stale file."""
    parser = argparse.ArgumentParser(prog="podvisor_common.api.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, report stale files")
    parser.add_argument("--root", type=Path, default=REPOSITORY, help="top of the repository")
    options = parser.parse_args(arguments)
    stale = stale_files(options.root)
    if options.check:
        sys.stderr.writelines(f"stale: {path}; run `make generate`\n" for path in stale)
        return 1 if stale else 0
    wanted = generated_files()
    for path in stale:
        content = wanted.get(str(path.relative_to(options.root)))
        if content is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
