"""A changed key is looked at: its document becomes chunks."""
