"""What a kernel may ask of the architecture that it is compiled for."""

import triton.language as tl


def has_wgmma(_semantic=None):
    """Whether tensor cores take a warp group's operands from shared memory. No interpreter's do."""
    return tl.constexpr(_semantic is not None and _semantic.builder.options.arch == "sm90")


def multiply_add(a, b, acc, _semantic=None):
    """acc + a @ b in fp32, in ordinary multiply-adds: `gl.dot_fma` for sums of any length.

    Triton asks for 16 products a sum because tensor cores do.
    """
    builder = _semantic.builder
    precision = _semantic._str_to_dot_input_precision("ieee")
    handle = builder.create_dot(a.handle, b.handle, acc.handle, precision, 0)
    return tl.tensor(handle, acc.type)


# `tl.core.builtin` would do no more, and ask for a compiler.
setattr(has_wgmma, tl.core.TRITON_BUILTIN, True)
setattr(multiply_add, tl.core.TRITON_BUILTIN, True)
