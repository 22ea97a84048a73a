"""Functions on tensors with the signatures of ``torch.nn.functional``; results equal PyTorch's to rounding.

    import gpunet.functional as F
"""

from gpunet.ops.shape import pad as pad
