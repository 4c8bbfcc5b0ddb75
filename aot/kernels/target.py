"""What a kernel may ask of the architecture that it is compiled for."""

import triton.language as tl


@tl.core.builtin
def has_wgmma(_semantic=None):
    """Whether tensor cores take a warp group's operands from shared memory."""
    return tl.constexpr(_semantic.builder.options.arch == "sm90")
