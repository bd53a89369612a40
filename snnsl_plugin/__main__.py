"""`python -m snnsl_plugin` is `snnsl`."""

import sys

from snnsl_plugin.cli import main

sys.exit(main())
