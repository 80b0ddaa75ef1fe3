#pragma once
/// Helpers of this module's tests.

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include "core/files.h"
#include "core/result.h"

namespace tailor::testing {

/// A directory named in the environment; the test fails where it is not set.
inline std::filesystem::path from_environment(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr)
    throw Exception({ErrorCode::kUnavailable, std::string(name) + " is not set; run the tests through ctest", ""});
  return value;
}
inline std::filesystem::path minilm_dir() {
  return from_environment("TAILOR_MODELS_DIR") / "all-minilm-l6-v2";
}
inline std::filesystem::path smollm_file() {
  return from_environment("TAILOR_MODELS_DIR") / "smollm2-135m-instruct" / "SmolLM2-135M-Instruct.Q4_1.gguf";
}
inline std::filesystem::path golden(const char* name) {
  return from_environment("TAILOR_SOURCE_DIR") / "tests" / "golden" / "data" / name;
}

template <typename T>
std::string raw(T value) {
  std::string out(sizeof value, '\0');
  std::memcpy(out.data(), &value, sizeof value);
  return out;
}

/// The result is an error of this code whose message holds `part`.
template <typename R>
void expect_error(const R& result, ErrorCode code, const std::string& part) {
  ASSERT_FALSE(result.has_value()) << "expected an error with: " << part;
  EXPECT_EQ(result.error().code, code) << result.error().message;
  EXPECT_NE(result.error().message.find(part), std::string::npos)
      << "message: " << result.error().message << "\nexpected: " << part;
}

}  // namespace tailor::testing
