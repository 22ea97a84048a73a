"""What kernels of the processor share: threads, memory for results, and the compiler.

``run(task, count)`` shares tasks among threads, ``buffers`` hands out memory, ``jit`` compiles. Numba is not imported
before a kernel of backend numba_cpu is.
"""
