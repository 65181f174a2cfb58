"""How a job goes on that was killed: what it found out, fitted and trained, kept in its folder and mirrored."""
