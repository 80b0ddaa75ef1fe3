#pragma once
/// For tests only: the file written by tests/golden/eval_golden.py.

#include <cstdlib>
#include <string>
#include <vector>

#include "core/json.h"

namespace tailor {

inline Json eval_golden() {
  const char* tree = std::getenv("TAILOR_SOURCE_DIR");
  return read_json(std::string(tree ? tree : ".") + "/tests/golden/data/eval_golden.json").value();
}

template <typename T>
std::vector<T> numbers(const Json& array) {
  std::vector<T> out;
  for (const auto& x : array) out.push_back(x.get<T>());
  return out;
}

}  // namespace tailor
