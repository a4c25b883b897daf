"""The /v1 pipeline."""
