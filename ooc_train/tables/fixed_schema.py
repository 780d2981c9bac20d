"""The fixed schema of a given recipe, in the place of schema inference."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

from ooc_train.tables.features import Records
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.schema_inference import SchemaInference


class FixedSchema:
    """A substitute for `SchemaInference`, whose recipe is given and stays as it is.

    If `needs_y`, records hold the target and the weight.
    """

    nbytes = 0

    def __init__(self, recipe: Recipe, *, needs_y: bool) -> None:
        self.draft = recipe
        self.encoder = recipe.encoder(needs_y=needs_y)
        self.y_dtype = recipe.dtype

    def add(self, records: Records) -> None:
        """Ignore training rows."""

    def recipe(
        self,
        blocks: Callable[[], Iterable[Records]] | None,  # noqa: ARG002
        max_bytes: int = 0,  # noqa: ARG002
    ) -> Recipe:
        """Return the given recipe."""
        return self.draft

    def remapper(self, recipe: Recipe) -> Callable[[Records], None]:  # noqa: ARG002
        """Return a function that leaves codes as they are, since the recipe made them."""
        return lambda _: None

    def losses(self) -> list[str]:
        """Return a message for each column whose numbers lose values in the recipe's dtype."""
        return self.encoder.rounding.losses()

    def constant(self, recipe: Recipe) -> list[str]:  # noqa: ARG002
        """Return no columns: none is examined."""
        return []


Schema: TypeAlias = SchemaInference | FixedSchema
"""What raw columns become: inferred from training rows, or fixed by a recipe."""
