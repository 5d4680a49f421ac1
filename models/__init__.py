"""What p and q are, and the bounds on log p(x). Nothing here knows of data, training, files or plots."""

from models.iwae import IWAE, IWAEOutput
from models.objectives import BOUNDS, OBJECTIVES

__all__ = ["BOUNDS", "IWAE", "IWAEOutput", "OBJECTIVES"]
