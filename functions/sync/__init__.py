"""Sources are compared with their documents, on a schedule and when asked; the sweeper of whatever got stuck."""
