"""What is known of the vendors' models: prices and sizes, each with the page and the day that it was read."""
