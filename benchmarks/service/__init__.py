"""What the service itself costs."""
