"""The training images as a tensor, held in memory once where they are large."""

import tensorflow as tf

ALIGNED = 64  # bytes: where TensorFlow wants a tensor to begin


def as_tensor(images):
    """uint8 [n, n_pixels] -> a tensor of them, to which nobody may write.

    On a CPU it is the array itself where that begins at a multiple of ALIGNED, as data.arrays.aligned makes it and as
    arrays mapped to files do (a batch then reads only the pages it needs). Otherwise, and on a GPU, it is a copy.
    """
    aligned = images.flags.c_contiguous and images.flags.writeable and images.ctypes.data % ALIGNED == 0
    if tf.config.get_visible_devices("GPU") or not aligned:
        return tf.constant(images)
    return tf.experimental.dlpack.from_dlpack(images.__dlpack__())
