"""`python -m webui`: what launch.py hands over to."""

import sys

from webui.cli import main

if __name__ == "__main__":
    sys.exit(main())
