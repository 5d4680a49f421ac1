"""The paper's schedule in numbers (Burda et al., sec. 5). Nothing here imports TensorFlow."""

PAPER_STAGES = 8  # stage i = 0 ... 7 is 3**i epochs at learning rate 1e-3 * 10**(-i/7)
PAPER_EPOCHS = sum(3**i for i in range(PAPER_STAGES))
