"""The `bonito` command."""
