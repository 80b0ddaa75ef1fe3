#pragma once
/// For tests only: the file written by tests/golden/learn_golden.py.

#include <cstdlib>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/matrix.h"

namespace tailor {

inline Json learn_golden() {
  const char* tree = std::getenv("TAILOR_SOURCE_DIR");
  return read_json(std::string(tree ? tree : ".") + "/tests/golden/data/learn_golden.json").value();
}

template <typename T>
std::vector<T> numbers(const Json& array) {
  std::vector<T> out;
  for (const auto& x : array) out.push_back(x.get<T>());
  return out;
}

/// Rows [begin, end) of a golden matrix.
inline Matrix matrix(const Json& values, std::size_t cols, std::size_t begin, std::size_t end) {
  Matrix m(end - begin, cols);
  for (std::size_t i = 0; i < m.data.size(); ++i) m.data[i] = values[begin * cols + i].get<float>();
  return m;
}

}  // namespace tailor
