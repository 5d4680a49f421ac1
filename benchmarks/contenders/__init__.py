"""The programs that are timed against each other, each as the people who use that framework would write it.

Each module has `build(spec, weights, images)`, which returns (bound, run):
  bound(x, noise) -> the k-sample IWAE bound of a batch, with the given weights and noise, before any training;
  run(n_steps): trains for that many steps, and returns when they are done.
spec: n_samples, batch_size, layers; weights: list of arrays in the order of `layout`; images: uint8 [n, 784].
"""

LEARNING_RATE, EPSILON = 1e-3, 1e-4
# of SOAP, as training/soap.py has them by default: steps between two updates of the covariances, and of the bases
COVARIANCE_FREQUENCY, PRECONDITION_FREQUENCY, MAX_PRECONDITION_DIM = 4, 20, 300


def layout(layers):
    """Shapes of the dense layers, kernel [in, out] and bias [out], in the order in which `weights` lists them.

    Each block is hidden1, hidden2 and its heads: q(z1|x), (q(z2|z1), p(z1|z2),) p(x|z1).
    """
    if layers == 1:
        blocks = [(784, 200, [100, 100]), (100, 200, [784])]
    else:
        blocks = [(784, 200, [100, 100]), (100, 100, [50, 50]), (50, 100, [100, 100]), (100, 200, [784])]
    shapes = []
    for inputs, hidden, heads in blocks:
        shapes += [(inputs, hidden), (hidden, hidden), *[(hidden, head) for head in heads]]
    return shapes


def split(weights, layers):
    """weights -> a list of blocks, each a list of (kernel, bias)."""
    pairs = list(zip(weights[::2], weights[1::2], strict=True))
    sizes = [4, 3] if layers == 1 else [4, 4, 4, 3]
    blocks = []
    for size in sizes:
        blocks.append(pairs[:size])
        pairs = pairs[size:]
    return blocks
