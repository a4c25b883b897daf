"""Google Cloud: Cloud Storage and its notifications, Cloud Tasks, Pub/Sub, Secret Manager, and the functions' edge."""
