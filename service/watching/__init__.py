"""What an operator can see of a server, its workers and agents: logs, metrics, traces, readiness."""
