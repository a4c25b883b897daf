"""The management API: FastAPI over the library, one module per concern and one router per resource."""
