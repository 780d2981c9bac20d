"""How a CSV file is read that nobody told of: as the training files, or as its header shows."""

from dataclasses import replace

from ooc_train.errors import InvalidTable
from ooc_train.tables import csv
from ooc_train.tables.cell_formats import PLAIN, CellFormats
from ooc_train.tables.csv_blocks import Dialect
from ooc_train.tables.names import DELIMITERS, default_delimiter, delimiter_option
from ooc_train.tables.recipe import Recipe


def dialect_for(
    path: str,
    delimiter: str | None,
    encoding: str | None,
    recipe: Recipe | None,
    *,
    needs_y: bool,
) -> Dialect:
    """Return delimiter and encoding of a file: as told, else those of the recipe's training files.

    If the header has the recipe's columns under another delimiter alone, that one is returned.

    Parameters
    ----------
    path : str
        The file, or the first of several.
    delimiter, encoding : str or None
        What the user told.
    recipe : Recipe or None
        The recipe for the file.
    needs_y : bool
        Whether the target and the weights of the recipe are needed.

    Raises
    ------
    InvalidTable
        If the delimiter is another than that of the training files, and numbers of theirs were
        written in a form: whether those of this file are too is open.
    """
    if recipe is None:
        told = "utf8" if encoding is None else encoding
        return Dialect(delimiter or default_delimiter(path), told)
    expected = Dialect(
        delimiter or recipe.delimiter or default_delimiter(path),
        recipe.encoding if encoding is None else encoding,
        encoding_is_assumed=encoding is None,
    )
    if delimiter is not None:
        return expected
    wanted = frozenset(recipe.encoder(needs_y=needs_y).names)
    n_expected = _n_found(path, expected, wanted)
    if n_expected == len(wanted):
        return expected
    others = (replace(expected, delimiter=each) for each in DELIMITERS)
    n_found, found = max(
        ((_n_found(path, dialect, wanted), dialect) for dialect in others), key=lambda pair: pair[0]
    )
    if n_found <= max(n_expected, 0):
        return expected
    numbers = CellFormats(recipe.formats.decimal, recipe.formats.thousands)
    if n_found == len(wanted) and numbers != PLAIN:
        raise InvalidTable(
            f"{path} has the columns of the recipe between {found.delimiter!r}, and not between "
            f"{expected.delimiter!r}, so its numbers may have another form than those of training, "
            f"which is {numbers.as_options()}; if it is the same, say "
            f"{delimiter_option(found.delimiter)}, else write the file as those of training"
        )
    return found


def _n_found(path: str, dialect: Dialect, wanted: frozenset[str]) -> int:
    """Return how many of the wanted columns the header has; -1 if it can't be read so."""
    try:
        return len(wanted.intersection(csv.read_names(path, dialect)))
    except InvalidTable:
        return -1
