"""Options of how people wrote numbers, dates, and yes and no in raw files."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

from ooc_train.cli.options import option
from ooc_train.cli.parsers import LIST, names

if TYPE_CHECKING:
    from ooc_train.tables.cell_formats import CellFormats

_FORMATS = "Formats of cells"


@dataclass(frozen=True)
class FormatOptions:
    """Options of how text becomes numbers, dates, and yes and no; `--dry-run` proposes them."""

    decimal: Annotated[
        str | None,
        option(of=_FORMATS, metavar="SIGN", help="Sign before the fraction of a number: . or ,"),
    ] = None
    thousands: Annotated[
        str | None,
        option(
            of=_FORMATS, metavar="SIGN", help="Sign between thousands: , or . or ' or a space ' '."
        ),
    ] = None
    symbols: Annotated[
        Any,
        option(
            of=_FORMATS,
            parse=names,
            metavar=LIST,
            help="Currencies and units next to numbers, such as €,%; 5 % is the number 5.",
        ),
    ] = None
    na: Annotated[
        Any,
        option(
            of=_FORMATS,
            parse=names,
            metavar=LIST,
            help="Words for a missing number, date, or yes and no, such as unknown,-",
        ),
    ] = None
    true: Annotated[
        Any, option("--true", of=_FORMATS, parse=names, metavar=LIST, help="Words for yes.")
    ] = None
    false: Annotated[
        Any, option("--false", of=_FORMATS, parse=names, metavar=LIST, help="Words for no.")
    ] = None
    date_format: Annotated[
        list[str] | None,
        option(
            of=_FORMATS,
            metavar="[COLUMN=]FORM",
            help="Form of dates, such as %d/%m/%Y, of all columns of text or of one; may be "
            "repeated.",
        ),
    ] = None

    def formats(self) -> "CellFormats":
        """Return the formats; `ValueError` if they contradict each other."""
        from ooc_train.tables.cell_formats import CellFormats

        given = {name: value for name, value in asdict(self).items() if value}
        if self.date_format:
            # The name of a column may have an =, and a form has it only after its first %.
            parts = (text.partition("%") for text in self.date_format)
            pairs = [(*before.rpartition("=")[::2], sign + rest) for before, sign, rest in parts]
            given["date_format"] = {name: start + rest for name, start, rest in pairs}
        return CellFormats(**given)
