"""Following: a model that learns from rows as a store grows, and is published again and again."""
