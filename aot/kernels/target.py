"""What a kernel may ask of the architecture that it is compiled for."""

import triton.language as tl


def has_wgmma(_semantic=None):
    """Whether tensor cores take a warp group's operands from shared memory. No interpreter's do."""
    return tl.constexpr(_semantic is not None and _semantic.builder.options.arch == "sm90")


# `tl.core.builtin` would do no more, and ask for a compiler.
setattr(has_wgmma, tl.core.TRITON_BUILTIN, True)
