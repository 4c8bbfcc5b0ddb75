"""Reading the input from memory in bursts, ahead of its use."""

import triton
import triton.language as tl

AHEAD = tl.constexpr(2)  # slabs


@triton.jit
def prefetch_slab(
    x, position, slab, slab_lines, input_lines, program, programs, THREADS: tl.constexpr
):
    """Fetch a slab of the input to L2 where `position`, of a kernel's programs, begins another.

    Kernels that write much more than they read are slow where each of their reads turns the memory
    from writing to reading and back; so one slab is fetched at once, two before it is used.
    `slab` positions read `slab_lines` lines of 128 bytes. `program` of `programs` at a position.
    """
    ELEMENTS: tl.constexpr = 1024 // x.dtype.element_ty.primitive_bitwidth  # of a line
    if position % slab == 0:
        first = (position // slab + AHEAD) * slab_lines
        last = tl.minimum(first + slab_lines, input_lines)
        first = tl.where(position == 0, 0, first)
        lane = tl.arange(0, THREADS)
        for start in range(first + program * THREADS, last, programs * THREADS):
            line = tl.minimum(start + lane, last - 1)
            tl.inline_asm_elementwise(
                "prefetch.global.L2::evict_last [$1]; mov.b32 $0, 0;",
                "=r,l",
                [x + line.to(tl.int64) * ELEMENTS],
                dtype=tl.int32,
                is_pure=False,
                pack=1,
            )
