"""Build the reference: a page for each public name, from its docstring, and a search.

``python -m tests.reference FOLDER`` needs the extra ``docs``. Whatever Sphinx warns of ends it.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.reference.site import build


def main() -> None:
    """Build the site, and say where its first page is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the site goes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as sources:
        warnings = build(Path(sources), options.folder)
    if warnings:
        sys.exit(warnings)
    print(options.folder / "index.html")


if __name__ == "__main__":
    main()
