"""Events of a run, its report, and the fitted model that it saves."""
