"""Every precision of one network on every runtime: latency, accuracy, agreement."""
