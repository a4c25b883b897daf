"""What differs between clouds: stores, queues, secrets, notifications."""
