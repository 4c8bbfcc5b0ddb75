"""Where outputs lie that come in blocks, one for each input: kernel == stride without padding.

A volume is an image of all its slices' rows. Row r = d * in_h + h of the input makes rows
(d * kernel_d + tap_d) * out_h + h * kernel_h + tap_h of the output.
"""

import triton
import triton.language as tl  # noqa: F401  the interpreter looks for it


@triton.jit
def place(flat, out_h, out_w, kernel_d, kernel_h):
    """Where outputs of the kernel's first row lie, counted as if its rows followed each other.

    In between lie kernel_h - 1 rows of the other kernel rows, and slices of the other depths.
    """
    row = flat // out_w
    result = flat + row * ((kernel_h - 1) * out_w)
    if kernel_d > 1:
        result += row // (out_h // kernel_h) * ((kernel_d - 1) * out_h * out_w)
    return result


@triton.jit
def kernel_row_place(row, out_h, out_w, kernel_h):
    """How far a kernel row's outputs lie behind the first one's."""
    return (row // kernel_h * out_h + row % kernel_h) * out_w
