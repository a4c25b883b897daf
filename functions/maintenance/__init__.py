"""Indexes and partitions, with the owner's rights."""
