"""`python -m cortexd.cli` is `cortex`."""

import sys

from cortexd.cli.run import main

sys.exit(main())
