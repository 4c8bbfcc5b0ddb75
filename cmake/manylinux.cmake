# Libraries that link `manylinux` load on every system that torch's wheels do (manylinux_2_28),
# whatever newer GCC and glibc built them. auditwheel and tests/test_package.py check it.

# libstdc++ by its file: some toolchains would link their own copy statically, whose symbols other libraries
# of the process then find: AOTInductor's packages crashed so. Without it there are no versions to choose.
set(shared_libstdcxx -l:libstdc++.so.6)
include(CheckCXXSourceCompiles)
set(CMAKE_REQUIRED_LIBRARIES ${shared_libstdcxx})
check_cxx_source_compiles([[
  extern "C" void destroy(void**);
  __asm__(".symver destroy, _ZNSt15__exception_ptr13exception_ptrD1Ev@CXXABI_1.3.3");
  int main() { destroy(nullptr); }
]] CONVT_MANYLINUX)
unset(CMAKE_REQUIRED_LIBRARIES)
if(NOT CONVT_MANYLINUX)
  message(STATUS "This build is for Linux as new as this one")
  add_library(manylinux INTERFACE)
  return()
endif()

add_library(manylinux OBJECT csrc/manylinux.cpp)
target_compile_options(manylinux INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:SHELL:-include ${PROJECT_SOURCE_DIR}/csrc/manylinux.hpp>")
# libdl by its file: glibc >= 2.34 has its symbols elsewhere, and no libdl.so to link.
target_link_libraries(manylinux INTERFACE ${shared_libstdcxx}
  -Wl,--push-state,--no-as-needed -l:libdl.so.2 -Wl,--pop-state)
