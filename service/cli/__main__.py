"""`python -m service.cli` is the `shoal` command."""

from service.cli import main

main()
