"""Short programs to read and to run: ``python -m gpunet.examples.softmax_digits``, and so on."""
