"""Proof, time and report: what holds a kernel against its definition, against the clock, and against the others.

    from gpunet.measure import compare, info
    compare.run(compare.Options(budget=60))

A part is imported when it is named, so that ``gpunet info`` pays for nothing that only a comparison needs.
"""
