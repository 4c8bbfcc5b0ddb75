"""Which tap an output takes, where it takes at most one."""

import triton
import triton.language as tl


@triton.jit
def tap_of(taps, residue):
    """The tap of outputs o with (o + padding) % stride == residue: a nibble; >= kernel is none."""
    return ((taps >> (residue * 4)) & 15).to(tl.int32)
