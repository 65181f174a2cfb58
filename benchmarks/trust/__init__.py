"""Whether what Shoal claims about latency is so."""
