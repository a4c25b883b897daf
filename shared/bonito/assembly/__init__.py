"""A process put together out of its settings: its parts, its stores, and the loop that a function runs them in."""
