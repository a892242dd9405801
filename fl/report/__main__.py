"""`python -m fl.report`: compares runs."""

import sys

from fl.report.compare import main

sys.exit(main(sys.argv[1:]))
