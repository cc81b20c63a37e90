"""The parts that all scripts have in common."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit("error: Python 3.11 or newer is needed; this is " + sys.version.split()[0])
