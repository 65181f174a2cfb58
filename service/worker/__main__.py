"""`python -m service.worker` is a worker process."""

import sys

from service.worker.main import main

sys.exit(main())
