"""`python -m ratchet.cli`, where the package is on the path and not installed."""

import sys

from ratchet.cli.main import main

sys.exit(main())
