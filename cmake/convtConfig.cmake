# convt::core   problems, plans and launches on raw addresses; needs nothing.
# convt::torch  convt/torch.hpp and the registered op, with libtorch: that of a find_package(Torch) before, or
#               else the one in CMAKE_PREFIX_PATH, of which no CUDA toolkit is asked (TorchConfig.cmake does).
include("${CMAKE_CURRENT_LIST_DIR}/convtTargets.cmake")

set(convt_libtorch "${TORCH_LIBRARIES}")
if(NOT Torch_FOUND AND (NOT convt_FIND_COMPONENTS OR "torch" IN_LIST convt_FIND_COMPONENTS))
  # torch.utils.cmake_prefix_path is torch/share/cmake.
  list(TRANSFORM CMAKE_PREFIX_PATH APPEND /../../include OUTPUT_VARIABLE convt_hints)
  find_path(CONVT_TORCH_INCLUDE torch/csrc/stable/library.h HINTS ${convt_hints})
  if(CONVT_TORCH_INCLUDE)
    cmake_path(GET CONVT_TORCH_INCLUDE PARENT_PATH convt_torch_folder)
    if(NOT TARGET convt::libtorch)
      add_library(convt::libtorch INTERFACE IMPORTED)
      foreach(library torch torch_cpu torch_cuda c10 c10_cuda)
        file(GLOB library ${convt_torch_folder}/lib/lib${library}.so)
        list(APPEND convt_libraries ${library})
      endforeach()
      # All of them: torch's CUDA part registers itself, too.
      list(JOIN convt_libraries "," convt_joined)
      target_link_libraries(convt::libtorch INTERFACE
        -Wl,--push-state,--no-as-needed,${convt_joined},--pop-state ${convt_libraries})
      target_include_directories(convt::libtorch INTERFACE
        ${CONVT_TORCH_INCLUDE} ${CONVT_TORCH_INCLUDE}/torch/csrc/api/include)
    endif()
    set(convt_libtorch convt::libtorch)
  elseif("torch" IN_LIST convt_FIND_COMPONENTS)
    set(convt_FOUND FALSE)
    set(convt_NOT_FOUND_MESSAGE "convt::torch needs libtorch: add torch.utils.cmake_prefix_path to CMAKE_PREFIX_PATH")
  endif()
endif()

if(convt_libtorch AND NOT TARGET convt::torch)
  add_library(convt::torch INTERFACE IMPORTED)
  # The op registers itself when its library loads: keep the library even where nothing refers to it. In one word,
  # as CMake reorders; named again, as CMake derives the run path from names.
  target_link_libraries(convt::torch INTERFACE
    -Wl,--push-state,--no-as-needed,$<TARGET_FILE:convt::torch_op>,--pop-state convt::torch_op ${convt_libtorch})
  target_compile_features(convt::torch INTERFACE cxx_std_20)
endif()
