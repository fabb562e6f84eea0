"""``python -m sparsenode``."""

import sys

from sparsenode._cli import main

sys.exit(main())
