"""Several fits side by side: trade-off of batch sizes, advice, demo."""
