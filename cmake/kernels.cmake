# Compiles aot/ into CONVT_REGISTRY_SOURCES, the variants' table and their images, and headers of
# their kernels' arguments in CONVT_GENERATED_FOLDER.
# Images are kept by content hash beside the manifest, so a rebuild compiles only what changed.

set(aot_folder ${PROJECT_BINARY_DIR}/aot)
set(generated_folder ${PROJECT_BINARY_DIR}/generated)
set(CONVT_GENERATED_FOLDER ${generated_folder})
file(GLOB_RECURSE aot_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/aot/*.py)

add_custom_command(
  OUTPUT ${aot_folder}/manifest.json
  COMMAND ${Python_EXECUTABLE} -m aot.compile --archs "${CONVT_CUDA_ARCHS}" --out ${aot_folder}
  WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
  DEPENDS ${aot_sources}
  COMMENT "Compiling kernels for ${CONVT_CUDA_ARCHS}"
  USES_TERMINAL VERBATIM)

add_custom_command(
  OUTPUT ${generated_folder}/registry_data.cpp ${generated_folder}/registry_data.S
  COMMAND ${Python_EXECUTABLE} -m aot.embed --manifest ${aot_folder}/manifest.json --out ${generated_folder}
  WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
  DEPENDS ${aot_folder}/manifest.json ${PROJECT_SOURCE_DIR}/aot/embed.py
          ${PROJECT_SOURCE_DIR}/csrc/families/words.hpp
  COMMENT "Embedding kernels"
  VERBATIM)

file(GLOB tuned_files CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/aot/tuned/*.jsonl)
add_custom_command(
  OUTPUT ${generated_folder}/tuned_data.cpp
  COMMAND ${Python_EXECUTABLE} -m aot.tuned --records ${PROJECT_SOURCE_DIR}/aot/tuned --out ${generated_folder}/tuned_data.cpp
  WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
  DEPENDS ${tuned_files} ${PROJECT_SOURCE_DIR}/aot/tuned.py ${PROJECT_SOURCE_DIR}/python/convt/records.py
  COMMENT "Embedding measured times"
  VERBATIM)

set(CONVT_REGISTRY_SOURCES ${generated_folder}/tuned_data.cpp ${generated_folder}/registry_data.cpp ${generated_folder}/registry_data.S)
