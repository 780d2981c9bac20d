"""What can go wrong, drawn as a tree.

::

    OocTrainError
    ├── StoreError                    the data at rest
    │   ├── StoreNotFound             (FileNotFoundError) there is nothing at that path
    │   ├── InvalidStore              (ValueError) what lies there is no store that can be used
    │   ├── CorruptChunk              a chunk or an index is missing, cut short, or fails its checksum
    │   ├── StoreChanged              a store was replaced while it was being read
    │   └── OutputExists              (FileExistsError) the place to write to is taken
    ├── TableError                    raw files, such as CSV and Parquet
    │   ├── TableNotFound             (FileNotFoundError) no such file
    │   ├── InvalidTable              (ValueError) a file, a column or a value that can't be used
    │   └── InvalidImages             (ValueError) images or labels that can't be used
    ├── NonFiniteData                 (ValueError) NaN or infinity in X, y or sample_weight
    ├── CeilingExceeded               (MemoryError) the job cannot be done under the memory ceiling
    ├── Diverged                      (ArithmeticError) the loss stopped being a number, or grew without end
    ├── UnsafePlace                   (PermissionError) a folder in which other users could replace our files
    ├── InvalidRun                    (ValueError) a run folder that does not fit what is asked of it
    ├── MissingPackage                (ModuleNotFoundError) a job needs a package that is not installed
    └── ClusterError                  (RuntimeError) the Dask cluster could not be started, used, or kept
        └── MissingMainGuard          (SystemExit) a script that starts processes lacks its ``__main__`` guard

    LeftoversRemoved                  (UserWarning) an earlier process was killed while it wrote
    SavedElsewhere                    (UserWarning) the place to write to was taken meanwhile

A setting that cannot be used is a plain `ValueError` (or `TypeError`) that names the setting, as in
scikit-learn. Every message states the figures and the way out.
"""


class OocTrainError(Exception):
    """The base of every error that this package raises on purpose."""


class MissingPackage(OocTrainError, ModuleNotFoundError):
    """A job needs a package that is not installed; the message says what installs it."""


class StoreError(OocTrainError):
    """Something is wrong with data at rest."""


class StoreNotFound(StoreError, FileNotFoundError):
    """Nothing lies at the path that was given."""


class InvalidStore(StoreError, ValueError):
    """What lies at the path is not a store, or not one that this job can use."""


class CorruptChunk(StoreError):
    """A chunk or shard index is missing, truncated, or fails its checksum."""


class StoreChanged(StoreError):
    """A store was replaced, or its metadata changed, while it was read or since it was split."""


class OutputExists(StoreError, FileExistsError):
    """The place to write to exists already."""


class TableError(OocTrainError):
    """Something is wrong with raw files."""


class TableNotFound(TableError, FileNotFoundError):
    """No file lies at the path that was given."""


class InvalidTable(TableError, ValueError):
    """A raw file, or a column or value in it, that can't be used as asked."""


class InvalidImages(TableError, ValueError):
    """A raw file of images or of labels that can't be used as asked."""


DROP_OR_FILL = "drop or fill such rows first"
"""Advice on missing values, which `NonFiniteData.with_command` makes a command of."""


class NonFiniteData(OocTrainError, ValueError):
    """NaN or infinity in X, y or sample_weight."""

    def with_command(self, command: str) -> "NonFiniteData":
        """Return the error with the command that drops missing values, or the error itself.

        Infinity and weights are left as they are: no command corrects them.
        """
        found, _, rest = str(self).rpartition(DROP_OR_FILL)
        if not found or rest or " has nan in sample_weight" in found:
            return self
        if " has nan in " not in found and " missing" not in found:
            return self
        how = "drop such rows"
        if " of X" in found:
            how = "drop or fill such rows (--missing drop, mean or median)"
        return NonFiniteData(f"{found}{how}: {command} --missing drop")


# MemoryError first, which makes its objects by a function of its own: tblib, by which distributed
# brings errors from workers, calls the first one.
class CeilingExceeded(MemoryError, OocTrainError):
    """The job needs more memory than its ceiling allows."""


class Diverged(OocTrainError, ArithmeticError):
    """The loss became NaN or grew without end."""


class UnsafePlace(OocTrainError, PermissionError):
    """Other users could replace what lies in a folder that temporary files were to go to."""


class InvalidRun(OocTrainError, ValueError):
    """A run folder that is not one, or of another model or number of features."""


class ClusterError(OocTrainError, RuntimeError):
    """The Dask cluster could not be started, used, or kept."""


class MissingMainGuard(ClusterError, SystemExit):
    """A script that starts worker processes lacks ``if __name__ == "__main__":``.

    Uncaught it ends the script with its one line: where the script was says nothing more. It is an
    `Exception` all the same, for those who catch one.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        # What Python prints as it exits, with status 1.
        self.code = message


class LeftoversRemoved(UserWarning):
    """What an earlier process, which was killed, left beside an output was removed."""


class SavedElsewhere(UserWarning):
    """Something appeared at the place of an output meanwhile, so that it lies beside it."""
