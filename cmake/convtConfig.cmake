# convt::core   problems, plans and launches on raw addresses; needs nothing.
# convt::torch  convt/torch.hpp and the registered op; needs libtorch: find_package(Torch) first or let this do it.
include("${CMAKE_CURRENT_LIST_DIR}/convtTargets.cmake")

include(CMakeFindDependencyMacro)
if(NOT convt_FIND_COMPONENTS OR "torch" IN_LIST convt_FIND_COMPONENTS)
  find_package(Torch QUIET)
endif()
if(Torch_FOUND AND NOT TARGET convt::torch)
  add_library(convt::torch INTERFACE IMPORTED)
  # The op registers itself when its library loads: keep the library even where nothing refers to it.
  set_target_properties(convt::torch PROPERTIES INTERFACE_LINK_LIBRARIES
    "-Wl,--push-state,--no-as-needed;convt::torch_op;-Wl,--pop-state;${TORCH_LIBRARIES}")
  set_target_properties(convt::torch PROPERTIES INTERFACE_COMPILE_FEATURES cxx_std_20)
endif()
