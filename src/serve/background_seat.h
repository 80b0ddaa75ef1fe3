#pragma once
/// Which of several servers at one store works off its jobs and batches: the seam where clusters come in.

#include <string_view>

namespace tailor {

/// Threads: called from any, concurrently; must not block.
class BackgroundSeat {
 public:
  virtual ~BackgroundSeat() = default;
  /// Whether this server may begin another job ("jobs") or batch ("batches") now. Asked again a second later.
  virtual bool holds(std::string_view work) = 0;
};

}  // namespace tailor
