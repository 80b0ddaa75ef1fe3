# Flags of our own code. Third-party headers are SYSTEM includes and make no warnings.
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
find_program(TAILOR_CCACHE ccache)
if(TAILOR_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # Without this it keeps no file that is compiled with a precompiled header.
  set(launcher ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${TAILOR_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${launcher})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${launcher})
endif()

add_library(tailor_flags INTERFACE)
target_compile_options(tailor_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wno-missing-field-initializers)
# Nobody reads the floating-point exception flags; without this no loop with a comparison is vectorised.
target_compile_options(tailor_flags INTERFACE -fno-trapping-math)
if(TAILOR_WERROR)
  target_compile_options(tailor_flags INTERFACE -Werror -Wno-restrict)  # GCC 12 sees overlaps in std::string that are not there (GCC bug 105651)
endif()
if(TAILOR_NATIVE)
  target_compile_options(tailor_flags INTERFACE -march=native)
elseif(CMAKE_SYSTEM_PROCESSOR STREQUAL x86_64)
  # As set-up builds llama.cpp with TAILOR_NATIVE=OFF: any processor with AVX2.
  target_compile_options(tailor_flags INTERFACE -march=x86-64-v3)
endif()
if(TAILOR_SANITIZE)
  target_compile_options(tailor_flags INTERFACE -fsanitize=${TAILOR_SANITIZE} -fno-omit-frame-pointer -g)
  target_link_options(tailor_flags INTERFACE -fsanitize=${TAILOR_SANITIZE})
  if(TAILOR_SANITIZE STREQUAL "thread")
    target_compile_options(tailor_flags INTERFACE -Wno-tsan)  # it does not know fences; the standard library uses them
  endif()
endif()
target_compile_definitions(tailor_flags INTERFACE TAILOR_VERSION="${PROJECT_VERSION}")
