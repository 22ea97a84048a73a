"""Functions on tensors with the signatures of ``torch.nn.functional``; results equal PyTorch's to rounding.

    import gpunet.functional as F
"""

from gpunet.ops.adaptive_avg_pool2d import adaptive_avg_pool2d as adaptive_avg_pool2d
from gpunet.ops.adaptive_max_pool2d import adaptive_max_pool2d as adaptive_max_pool2d
from gpunet.ops.avg_pool2d import avg_pool2d as avg_pool2d
from gpunet.ops.conv2d import conv2d as conv2d
from gpunet.ops.conv_transpose2d import conv_transpose2d as conv_transpose2d
from gpunet.ops.matmul import linear as linear
from gpunet.ops.matmul import matmul as matmul
from gpunet.ops.max_pool2d import max_pool2d as max_pool2d
from gpunet.ops.shape import pad as pad
