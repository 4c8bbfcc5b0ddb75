# Libraries that link `manylinux` load on every system that torch's wheels do (manylinux_2_28),
# whatever newer GCC and glibc built them. auditwheel and tests/test_wheel.py check it.

# A toolchain that links libstdc++ statically has no symbol versions to choose.
include(CheckCXXSourceCompiles)
check_cxx_source_compiles([[
  extern "C" void destroy(void**);
  __asm__(".symver destroy, _ZNSt15__exception_ptr13exception_ptrD1Ev@CXXABI_1.3.3");
  int main() { destroy(nullptr); }
]] CONVT_MANYLINUX)
if(NOT CONVT_MANYLINUX)
  message(STATUS "This build is for Linux as new as this one")
  add_library(manylinux INTERFACE)
  return()
endif()

add_library(manylinux OBJECT csrc/manylinux.cpp)
target_compile_options(manylinux INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:SHELL:-include ${PROJECT_SOURCE_DIR}/csrc/manylinux.hpp>")
# libdl by its file: glibc >= 2.34 has its symbols elsewhere, and no libdl.so to link.
target_link_libraries(manylinux INTERFACE
  -Wl,--push-state,--no-as-needed -l:libdl.so.2 -Wl,--pop-state)
