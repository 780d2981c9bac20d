"""How it is learned: methods that know sums and passes, and no rows."""
