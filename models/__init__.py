"""What p and q are, and the bounds on log p(x). Nothing here knows of data, training, files or plots."""
