"""AWS: notifications of S3, its stores, SQS, Secrets Manager, and what Lambda's doors share."""
