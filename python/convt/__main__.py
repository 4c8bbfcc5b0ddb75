"""`python -m convt`."""

import sys

from convt.cli import main

sys.exit(main())
