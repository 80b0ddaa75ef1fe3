#pragma once
/// How many cells of a key-value cache are in use. llama.cpp shares a cell between sequences that were copied from each
/// other and does not tell; this counts along.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tailor {

/// The cells of one sequence, one a token, in order.
using CellList = std::vector<std::int32_t>;

/// Threads: one at a time.
class CellLedger {
 public:
  /// A new cell for a token that is computed.
  void add(CellList& sequence) {
    std::int32_t cell;
    if (free_.empty()) {
      cell = static_cast<std::int32_t>(holders_.size());
      holders_.push_back(0);
    } else {
      cell = free_.back();
      free_.pop_back();
    }
    holders_[static_cast<std::size_t>(cell)] = 1;
    ++used_;
    sequence.push_back(cell);
  }
  void add(CellList& sequence, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) add(sequence);
  }
  /// The first `count` cells of a sequence belong to another as well.
  void share(const CellList& from, std::size_t count, CellList& to) {
    for (std::size_t i = 0; i < count; ++i) {
      ++holders_[static_cast<std::size_t>(from[i])];
      to.push_back(from[i]);
    }
  }
  /// The sequence keeps its first `keep` cells.
  void release(CellList& sequence, std::size_t keep = 0) {
    while (sequence.size() > keep) {
      const std::int32_t cell = sequence.back();
      sequence.pop_back();
      if (--holders_[static_cast<std::size_t>(cell)] > 0) continue;
      free_.push_back(cell);
      --used_;
    }
  }
  /// Cells that release() would set free.
  std::size_t own(const CellList& sequence) const {
    std::size_t n = 0;
    for (const std::int32_t cell : sequence) n += holders_[static_cast<std::size_t>(cell)] == 1 ? 1 : 0;
    return n;
  }
  std::size_t used() const { return used_; }

 private:
  std::vector<std::int32_t> holders_;  // by cell
  std::vector<std::int32_t> free_;
  std::size_t used_ = 0;
};

}  // namespace tailor
