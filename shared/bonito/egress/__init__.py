"""The one guarded HTTP client for addresses that a customer or a model chose."""
