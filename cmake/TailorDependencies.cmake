# Everything linked, in one place; docs/DEPENDENCIES.md says why each.
find_package(Threads REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(ICU REQUIRED COMPONENTS uc i18n)
find_package(CLI11 REQUIRED)
find_package(GTest REQUIRED)

# OpenBLAS: f32 GEMM for the linear models.
find_path(TAILOR_CBLAS_INCLUDE cblas.h PATH_SUFFIXES x86_64-linux-gnu openblas REQUIRED)
find_library(TAILOR_OPENBLAS openblas REQUIRED)
add_library(tailor_blas INTERFACE)
target_include_directories(tailor_blas SYSTEM INTERFACE ${TAILOR_CBLAS_INCLUDE})
target_link_libraries(tailor_blas INTERFACE ${TAILOR_OPENBLAS})

# llama.cpp, static, built once by scripts/setup.sh.
find_package(OpenMP REQUIRED COMPONENTS CXX)
function(tailor_import target file)
  if(NOT EXISTS ${file})
    message(FATAL_ERROR "llama.cpp is not at ${TAILOR_LLAMA_DIR} (${file} is missing): run scripts/setup.sh, or set TAILOR_LLAMA_DIR")
  endif()
  add_library(${target} STATIC IMPORTED GLOBAL)
  set_target_properties(${target} PROPERTIES IMPORTED_LOCATION ${file} INTERFACE_INCLUDE_DIRECTORIES ${TAILOR_LLAMA_DIR}/include
    INTERFACE_SYSTEM_INCLUDE_DIRECTORIES ${TAILOR_LLAMA_DIR}/include)
endfunction()
tailor_import(ggml::base ${TAILOR_LLAMA_DIR}/lib/libggml-base.a)
target_link_libraries(ggml::base INTERFACE Threads::Threads m)
tailor_import(ggml::cpu ${TAILOR_LLAMA_DIR}/lib/libggml-cpu.a)
target_link_libraries(ggml::cpu INTERFACE ggml::base OpenMP::OpenMP_CXX)
tailor_import(ggml::ggml ${TAILOR_LLAMA_DIR}/lib/libggml.a)
target_link_libraries(ggml::ggml INTERFACE ggml::cpu ggml::base dl)
tailor_import(llama::llama ${TAILOR_LLAMA_DIR}/lib/libllama.a)
target_link_libraries(llama::llama INTERFACE ggml::ggml ggml::cpu ggml::base)

# libtorch: tailor-tune only. A CPU-only libtorch where given; else the parts of the PyPI wheel that setup.sh unpacks.
if(TAILOR_TUNE AND EXISTS ${TAILOR_TORCH_DIR}/lib/libtorch_cpu.so)
  add_library(torch::torch INTERFACE IMPORTED GLOBAL)
  target_include_directories(torch::torch SYSTEM INTERFACE ${TAILOR_TORCH_DIR}/include ${TAILOR_TORCH_DIR}/include/torch/csrc/api/include)
  target_link_directories(torch::torch INTERFACE ${TAILOR_TORCH_DIR}/lib)
  target_link_libraries(torch::torch INTERFACE ${TAILOR_TORCH_DIR}/lib/libtorch_cpu.so ${TAILOR_TORCH_DIR}/lib/libc10.so)
  target_link_options(torch::torch INTERFACE -Wl,-rpath,${TAILOR_TORCH_DIR}/lib -Wl,--unresolved-symbols=ignore-in-shared-libs)
  # at::parallel_for is silently serial without OpenMP.
  target_compile_options(torch::torch INTERFACE -fopenmp)
  target_link_options(torch::torch INTERFACE -fopenmp)
  message(STATUS "libtorch: ${TAILOR_TORCH_DIR}")
else()
  message(STATUS "libtorch: not found (TAILOR_TORCH_DIR); tailor-tune is not built, training is left out")
endif()
