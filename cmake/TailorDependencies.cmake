# Everything linked, in one place; docs/DEPENDENCIES.md says why each.
find_package(Threads REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(simdjson 3.0 REQUIRED)
find_package(yaml-cpp 0.7 REQUIRED)
find_package(ICU REQUIRED COMPONENTS uc i18n)
find_package(CLI11 REQUIRED)
find_package(Boost 1.81 REQUIRED)
find_package(SQLite3 3.37 REQUIRED)  # STRICT tables
find_package(GTest REQUIRED)

# OpenBLAS: f32 GEMM for the linear models.
find_path(TAILOR_CBLAS_INCLUDE cblas.h PATH_SUFFIXES x86_64-linux-gnu openblas REQUIRED)
if(TAILOR_RELOCATABLE)
  find_library(TAILOR_OPENBLAS libopenblas.a REQUIRED)  # of the shared one the half that we do not use needs libgfortran
else()
  find_library(TAILOR_OPENBLAS openblas REQUIRED)
endif()
add_library(tailor_blas INTERFACE)
target_include_directories(tailor_blas SYSTEM INTERFACE ${TAILOR_CBLAS_INCLUDE})
target_link_libraries(tailor_blas INTERFACE ${TAILOR_OPENBLAS})

# Where set-up put things. A path that follows TAILOR_DEPS_DIR follows it when it changes; one that was set by hand stays.
if(NOT TAILOR_DEPS_DIR)
  set(cache "$ENV{TAILOR_CACHE}")
  if(NOT cache)
    set(cache "$ENV{HOME}/.cache/tailor")
  endif()
  set(TAILOR_DEPS_DIR "${cache}/deps" CACHE PATH "" FORCE)
endif()
foreach(part LLAMA:llama.cpp XGRAMMAR:xgrammar TORCH:libtorch)
  string(REPLACE ":" ";" part ${part})
  list(GET part 0 name)
  list(GET part 1 directory)
  foreach(stale "" "/${directory}" "${TAILOR_DEPS_DIR_BEFORE}/${directory}")
    if("${TAILOR_${name}_DIR}" STREQUAL "${stale}")
      set(TAILOR_${name}_DIR "${TAILOR_DEPS_DIR}/${directory}" CACHE PATH "" FORCE)
    endif()
  endforeach()
  # Links in deps/ may point at another version tomorrow; what is built today keeps what it was built with.
  file(REAL_PATH "${TAILOR_${name}_DIR}" TAILOR_${name}_ROOT)
endforeach()
set(TAILOR_DEPS_DIR_BEFORE "${TAILOR_DEPS_DIR}" CACHE INTERNAL "")

# llama.cpp: static, built by scripts/setup.sh; or the user's own installation, static or shared. Without libggml-cpu it is one
# that loads its backends at run time (src/model/llama_runtime.h).
function(tailor_import target name)
  set(lib ${TAILOR_LLAMA_ROOT}/lib)
  foreach(file ${lib}/lib${name}.a ${lib}/lib${name}.so)
    if(EXISTS ${file})
      add_library(${target} UNKNOWN IMPORTED GLOBAL)
      set_target_properties(${target} PROPERTIES IMPORTED_LOCATION ${file} INTERFACE_INCLUDE_DIRECTORIES ${TAILOR_LLAMA_ROOT}/include
        INTERFACE_SYSTEM_INCLUDE_DIRECTORIES ${TAILOR_LLAMA_ROOT}/include)
      return()
    endif()
  endforeach()
  message(FATAL_ERROR "llama.cpp is not at ${TAILOR_LLAMA_DIR} (lib${name}.a is missing): run scripts/setup.sh, or set TAILOR_LLAMA_DIR")
endfunction()
tailor_import(ggml::base ggml-base)
target_link_libraries(ggml::base INTERFACE Threads::Threads m)
# By flag, not by file: the compiler then takes the system's libgomp in tailor, and libtorch's stands in for it in tailor-tune.
target_link_options(ggml::base INTERFACE -fopenmp)
file(GLOB variants ${TAILOR_LLAMA_ROOT}/lib/libggml-cpu-*.so)
if(variants)
  add_library(ggml::cpu INTERFACE IMPORTED GLOBAL)
else()
  tailor_import(ggml::cpu ggml-cpu)
endif()
target_link_libraries(ggml::cpu INTERFACE ggml::base)
target_compile_options(ggml::cpu INTERFACE -fopenmp)
tailor_import(ggml::ggml ggml)
target_link_libraries(ggml::ggml INTERFACE ggml::cpu ggml::base dl)
if(EXISTS ${TAILOR_LLAMA_ROOT}/lib/libggml-cuda.a)
  find_package(CUDAToolkit REQUIRED)
  target_link_libraries(ggml::ggml INTERFACE ${TAILOR_LLAMA_ROOT}/lib/libggml-cuda.a ggml::base CUDA::cudart CUDA::cublas CUDA::cuda_driver)
endif()
tailor_import(llama::llama llama)
target_link_libraries(llama::llama INTERFACE ggml::ggml ggml::cpu ggml::base)

# XGrammar: static, built by scripts/setup.sh.
if(NOT EXISTS ${TAILOR_XGRAMMAR_ROOT}/lib/libxgrammar.a)
  message(FATAL_ERROR "XGrammar is not at ${TAILOR_XGRAMMAR_DIR} (lib/libxgrammar.a is missing): run scripts/setup.sh, or set TAILOR_XGRAMMAR_DIR")
endif()
add_library(xgrammar::xgrammar STATIC IMPORTED GLOBAL)
set_target_properties(xgrammar::xgrammar PROPERTIES IMPORTED_LOCATION ${TAILOR_XGRAMMAR_ROOT}/lib/libxgrammar.a
  INTERFACE_INCLUDE_DIRECTORIES ${TAILOR_XGRAMMAR_ROOT}/include INTERFACE_SYSTEM_INCLUDE_DIRECTORIES ${TAILOR_XGRAMMAR_ROOT}/include)
target_link_libraries(xgrammar::xgrammar INTERFACE Threads::Threads)

# libtorch: tailor-tune only. The parts of the PyPI wheel that set-up unpacks, a libtorch zip, or an installed PyTorch.
option(TAILOR_TORCH_CUDA "link libtorch's CUDA half (TAILOR_TORCH_DIR must be a CUDA build)" OFF)
if(TAILOR_TUNE AND EXISTS ${TAILOR_TORCH_ROOT}/lib/libtorch_cpu.so)
  set(lib ${TAILOR_TORCH_ROOT}/lib)
  add_library(torch::torch INTERFACE IMPORTED GLOBAL)
  target_include_directories(torch::torch SYSTEM INTERFACE ${TAILOR_TORCH_ROOT}/include ${TAILOR_TORCH_ROOT}/include/torch/csrc/api/include)
  # Linked directly: the wheel's own CMake package asks for a CUDA toolkit, which training on the processor does not need.
  target_link_libraries(torch::torch INTERFACE ${lib}/libtorch_cpu.so ${lib}/libc10.so)
  if(TAILOR_TORCH_CUDA)
    if(NOT EXISTS ${lib}/libtorch_cuda.so)
      message(FATAL_ERROR "TAILOR_TORCH_CUDA is ON, but ${lib} has no libtorch_cuda.so: run scripts/setup.sh --cuda, or set TAILOR_TORCH_DIR to a CUDA build")
    endif()
    target_link_libraries(torch::torch INTERFACE -Wl,--no-as-needed ${lib}/libtorch_cuda.so ${lib}/libc10_cuda.so -Wl,--as-needed)
  endif()
  # libtorch brings its libgomp under the system's name; first on the run path it is the only one loaded.
  target_link_options(torch::torch INTERFACE -Wl,-rpath,${lib} -Wl,--unresolved-symbols=ignore-in-shared-libs)
  # libtorch brings headers of another fmt release, which come first in the search path: used as headers only, in an
  # inline namespace of their own, they do not meet the system's library.
  target_compile_definitions(torch::torch INTERFACE FMT_HEADER_ONLY)
  # at::parallel_for is silently serial without OpenMP.
  target_compile_options(torch::torch INTERFACE -fopenmp)
  target_link_options(torch::torch INTERFACE -fopenmp)
  message(STATUS "libtorch: ${TAILOR_TORCH_ROOT}")
else()
  message(STATUS "libtorch: not found (TAILOR_TORCH_DIR); tailor-tune is not built, training is left out")
endif()
