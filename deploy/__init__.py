"""From a torch module to bytes that were measured: export, runtimes, timing, accuracy. Knows no engine, no service."""
