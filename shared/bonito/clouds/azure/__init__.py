"""Azure: Event Grid's notifications, Blob Storage, Storage Queues, Key Vault, and the doors of its Functions."""
