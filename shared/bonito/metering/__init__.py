"""What was used, by whom and at which cost."""
