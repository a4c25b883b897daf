"""A batch of chunks gets its vectors."""
