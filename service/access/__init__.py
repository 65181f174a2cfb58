"""Who calls, what they may do, and how often. Knows nothing of gRPC."""
