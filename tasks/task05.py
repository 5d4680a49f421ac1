"""The conditional IWAE with the standard normal prior: z is to tell what the label does not.

Beside task04, whose prior depends on the label: what does the choice of prior do to the bound and to the latent space?
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # it can be run from anywhere

from experiment import command_line
from tasks.task04 import work

DEFAULTS = dict(conditional="standard_prior", n_samples=5, preset="fast")
FIXED = ("conditional",)

if __name__ == "__main__":
    sys.exit(command_line(work, __doc__, defaults=DEFAULTS, fixed=FIXED))
