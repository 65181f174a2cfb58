"""What a worker does for one job: from the model and the samples to the report."""
