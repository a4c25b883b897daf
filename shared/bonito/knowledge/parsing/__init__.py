"""Documents into text with pages, sections and tables; a module per type."""
