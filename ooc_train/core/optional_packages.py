"""Packages that only some jobs need, and the error where one is missing."""

from collections.abc import Iterator
from contextlib import contextmanager

from ooc_train.errors import MissingPackage


@contextmanager
def needed_package(package: str, what: str, install: str = "") -> Iterator[None]:
    """Say what to install where an import of the block finds no package.

    Parameters
    ----------
    package : str
        The package as it is imported. Another that is missing raises as usual.
    what : str
        What needs it, in the plural, such as "models of PyTorch".
    install : str
        What pip installs; "" for the package.

    Raises
    ------
    MissingPackage
        If the package is not installed.

    Examples
    --------
    >>> try:
    ...     with needed_package("absent_package", "sheets"):
    ...         import absent_package
    ... except MissingPackage as error:
    ...     print(str(error)[:45])
    sheets need the package absent_package, which
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        first = (install or package).partition(" ")[0]
        raise MissingPackage(
            f"{what} need the package {first}, which is not installed; install it with: "
            f"pip install {install or package}",
            name=package,
        ) from None
