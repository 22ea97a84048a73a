"""Functions on tensors with the signatures of ``torch.nn.functional``; results equal PyTorch's to rounding.

Usually imported as ``from gpunet import functional as F``.
"""

from gpunet.ops.adaptive_avg_pool2d import adaptive_avg_pool2d as adaptive_avg_pool2d
from gpunet.ops.adaptive_max_pool2d import adaptive_max_pool2d as adaptive_max_pool2d
from gpunet.ops.avg_pool2d import avg_pool2d as avg_pool2d
from gpunet.ops.batch_norm import batch_norm as batch_norm
from gpunet.ops.conv2d import conv2d as conv2d
from gpunet.ops.conv_transpose2d import conv_transpose2d as conv_transpose2d
from gpunet.ops.cross_entropy import cross_entropy as cross_entropy
from gpunet.ops.dropout import dropout as dropout
from gpunet.ops.dropout import dropout2d as dropout2d
from gpunet.ops.gelu import gelu as gelu
from gpunet.ops.layer_norm import layer_norm as layer_norm
from gpunet.ops.leaky_relu import leaky_relu as leaky_relu
from gpunet.ops.log_softmax import log_softmax as log_softmax
from gpunet.ops.losses import binary_cross_entropy as binary_cross_entropy
from gpunet.ops.losses import binary_cross_entropy_with_logits as binary_cross_entropy_with_logits
from gpunet.ops.losses import l1_loss as l1_loss
from gpunet.ops.losses import mse_loss as mse_loss
from gpunet.ops.losses import nll_loss as nll_loss
from gpunet.ops.matmul import linear as linear
from gpunet.ops.matmul import matmul as matmul
from gpunet.ops.max_pool2d import max_pool2d as max_pool2d
from gpunet.ops.prelu import prelu as prelu
from gpunet.ops.relu import relu as relu
from gpunet.ops.shape import pad as pad
from gpunet.ops.sigmoid import sigmoid as sigmoid
from gpunet.ops.softmax import softmax as softmax
from gpunet.ops.softplus import softplus as softplus
from gpunet.ops.tanh import tanh as tanh
