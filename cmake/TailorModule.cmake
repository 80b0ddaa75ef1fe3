# tailor_module(NAME DEPS ...): library tailor_NAME from src/NAME/*.cpp, and test program tailor_NAME_test from
# src/NAME/*_test.cpp. One target a module keeps the arrows between modules one-way.
include(GoogleTest)

function(tailor_module name)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${name}/*.cpp)
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.cpp$")
  list(FILTER tests INCLUDE REGEX "_test\\.cpp$")
  if(NOT sources)
    add_library(tailor_${name} INTERFACE)
    target_include_directories(tailor_${name} INTERFACE ${CMAKE_SOURCE_DIR}/src)
    target_link_libraries(tailor_${name} INTERFACE ${ARG_DEPS})
    return()
  endif()
  add_library(tailor_${name} STATIC ${sources})
  target_include_directories(tailor_${name} PUBLIC ${CMAKE_SOURCE_DIR}/src)
  target_link_libraries(tailor_${name} PUBLIC ${ARG_DEPS} PRIVATE tailor_flags)
  if(tests)
    tailor_test(tailor_${name}_test SOURCES ${tests} DEPS tailor_${name})
  endif()
endfunction()

# tailor_test(NAME SOURCES ... DEPS ... [LABEL unit|recipe|parity] [TIMEOUT s])
# Tests read TAILOR_SOURCE_DIR (committed golden files), TAILOR_MODELS_DIR (the two default models) from the environment.
function(tailor_test name)
  cmake_parse_arguments(ARG "" "LABEL;TIMEOUT" "SOURCES;DEPS" ${ARGN})
  if(NOT ARG_LABEL)
    set(ARG_LABEL unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  if(TAILOR_SANITIZE)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 6")  # the thread sanitizer makes a model's arithmetic twenty times slower
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} tailor_flags GTest::gtest_main GTest::gmock)
  target_compile_options(${name} PRIVATE $<$<NOT:$<CONFIG:Debug>>:-O1>)  # compiling them takes longer than running them
  # Listed when ctest runs: loading libtorch to list tests may take longer than a linker step should.
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 120 PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT})
  # gtest_discover_tests cannot pass a list, so the environment is added in a file that ctest reads after it.
  set(environment "TAILOR_SOURCE_DIR=${CMAKE_SOURCE_DIR};TAILOR_BUILD_DIR=${CMAKE_BINARY_DIR};TAILOR_MODELS_DIR=${TAILOR_DEPS_DIR}/models;OMP_WAIT_POLICY=passive")
  set(file ${CMAKE_CURRENT_BINARY_DIR}/${name}_environment.cmake)
  file(WRITE ${file} "foreach(test IN LISTS ${name}_TESTS)\n  set_tests_properties(\"\${test}\" PROPERTIES ENVIRONMENT [==[${environment}]==])\nendforeach()\n")
  set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES ${file})
endfunction()

# Tests of the set-up itself: Python, no network.
add_test(NAME setup COMMAND python3 -B ${CMAKE_SOURCE_DIR}/tests/setup/setup_test.py)
set_tests_properties(setup PROPERTIES LABELS unit TIMEOUT 300)
add_test(NAME checklists COMMAND python3 -B ${CMAKE_SOURCE_DIR}/tests/setup/checklists_test.py)
set_tests_properties(checklists PROPERTIES LABELS unit TIMEOUT 60)
