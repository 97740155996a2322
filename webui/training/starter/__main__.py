"""`python -m webui.training.starter [STAGE]`: fetch, vae, encode, unet, export, evaluate, or all in that order.

Every stage picks up where it was stopped. Everything but the export lands in `--work-dir`.
"""

import sys

from webui.training.starter.stages import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
