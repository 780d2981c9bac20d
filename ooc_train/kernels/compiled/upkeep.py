"""Work after an update: the average of the parameters, and parameters in the data's units."""

from ooc_train.core.sums import Array
from ooc_train.kernels.compiled.parts import strict_part
from ooc_train.kernels.compiled.vectors import load, load_row, store_row
from ooc_train.kernels.layout import AVERAGED, EACH, INV_SCALE, LANES, OUTPUTS, THETA, W
from ooc_train.optimizers.averaging import AVERAGE_POWER


@strict_part
def predict_by_theta(room: Array, outputs: int) -> None:
    """Compute the parameters in the data's units, which predict from raw rows."""
    for k in range(outputs):
        at = OUTPUTS + EACH * k
        for j in range(room.shape[1]):
            room[at + W, j] = room[at + THETA, j] * room[INV_SCALE, j]


@strict_part
def average_with(average: Array, clock: Array, theta: Array, room: Array) -> None:
    """Add the parameters to their average; of `theta`, only the intercepts are used."""
    features = theta.shape[1] - 1
    clock[AVERAGED] += 1.0
    share = (AVERAGE_POWER + 1.0) / (AVERAGE_POWER + clock[AVERAGED])
    for k in range(len(theta)):
        at = OUTPUTS + EACH * k
        for j in range(0, features, LANES):
            mean = load_row(average, k, j)
            mean += share * (load(room, at + THETA, j) - mean)
            store_row(average, k, j, features, mean)
        average[k, features] += share * (theta[k, features] - average[k, features])
