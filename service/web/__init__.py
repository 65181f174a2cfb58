"""Pages for browsers: jobs, their progress as it happens, reports, devices. Read-only, in the server's own process."""
