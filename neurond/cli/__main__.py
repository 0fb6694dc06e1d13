"""`python -m neurond.cli` is `neuron`."""

import sys

from neurond.cli.run import main

sys.exit(main())
