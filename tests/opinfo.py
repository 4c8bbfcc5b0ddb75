"""torch's own samples of its operators, without what importing them does to the process."""

import torch
from torch.testing._internal.common_methods_invocations import op_db

# The import forbids to set any of torch's switches from here on, which other tests do.
torch.backends.flags_frozen.__globals__["__allow_nonbracketed_mutation_flag"] = True

OPS = {info.name: info for info in op_db if "conv_transpose" in info.name}
