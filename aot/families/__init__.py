"""One module a kernel family: which configurations of its kernels are compiled."""
