#pragma once
/// What a long operation reports while it runs. The receiver draws a bar, writes a JSON event, or ignores it.

#include <cstdint>
#include <functional>
#include <string>

namespace tailor {

struct Progress {
  std::string stage;  // "embedding texts", "searching the learning rate", …
  double done = 0;    // in the stage's own unit
  double total = 0;   // 0: unknown
  double loss = -1;   // < 0: none
};

using ProgressFn = std::function<void(const Progress&)>;  // called from the working thread; may be empty

}  // namespace tailor
