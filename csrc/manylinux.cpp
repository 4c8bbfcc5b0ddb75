// What the headers of GCC >= 11 and glibc >= 2.32 refer to and manylinux_2_28 (GCC 8, glibc 2.28)
// lacks. In every library of ours and hidden, as Red Hat's libstdc++_nonshared.a is.
#include <new>

#define CONVT_LOCAL(symbol) __asm__(symbol) __attribute__((visibility("hidden")))

extern "C" {

// Asked before each reference count: false makes it atomic, which is always right.
extern char single_threaded CONVT_LOCAL("__libc_single_threaded");
char single_threaded = 0;

void throw_bad_array_new_length() CONVT_LOCAL("_ZSt28__throw_bad_array_new_lengthv");
void throw_bad_array_new_length() { throw std::bad_array_new_length(); }

#if defined(__x86_64__) && defined(__linux__)
// std::exception_ptr counts references inline since GCC 11, through calls that are new. Its copy
// constructor and destructor, which older headers call, do the same.
void copy_exception(void** self, void* const* other);
void destroy_exception(void** self);
__asm__(".symver copy_exception, _ZNSt15__exception_ptr13exception_ptrC1ERKS0_@CXXABI_1.3.3");
__asm__(".symver destroy_exception, _ZNSt15__exception_ptr13exception_ptrD1Ev@CXXABI_1.3.3");

void exception_addref(void** self) CONVT_LOCAL("_ZNSt15__exception_ptr13exception_ptr9_M_addrefEv");
void exception_addref(void** self) {
  void* one_more;
  copy_exception(&one_more, self);
}

// Clears *self, as libstdc++'s own does when the count reaches zero.
void exception_release(void** self)
    CONVT_LOCAL("_ZNSt15__exception_ptr13exception_ptr10_M_releaseEv");
void exception_release(void** self) {
  destroy_exception(self);
  *self = nullptr;
}
#endif
}
