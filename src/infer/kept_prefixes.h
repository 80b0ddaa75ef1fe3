#pragma once
/// Keys and values of beginnings, as bytes outside of any context: what a lane had no room for, and what passes from
/// one lane to another.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "infer/page_bytes.h"
#include "infer/prefix_tree.h"

namespace tailor {

/// A sequence as llama.cpp saves it.
using SequenceBytes = std::shared_ptr<const PageBytes>;

/// Threads: one at a time.
class KeptPrefixes {
 public:
  explicit KeptPrefixes(std::uint64_t max_bytes) : max_bytes_(max_bytes) {}

  /// Drops those used longest ago until it fits; what is larger than all is not kept.
  void put(const std::string& space, std::vector<std::int32_t> tokens, SequenceBytes bytes);
  struct Match {
    std::size_t length = 0;  // tokens in common
    std::size_t tokens = 0;  // that the bytes hold
    SequenceBytes bytes;
  };
  Match longest(const std::string& space, std::span<const std::int32_t> tokens);
  /// Forgets what such a space holds.
  void drop_spaces(const std::function<bool(const std::string& space)>& which);
  std::uint64_t bytes() const { return bytes_; }
  std::uint64_t max_bytes() const { return max_bytes_; }

 private:
  struct Entry {
    std::string space;
    std::size_t tokens = 0;
    SequenceBytes bytes;
    std::uint64_t used = 0;
  };
  void remove(std::int64_t id);
  std::uint64_t max_bytes_, bytes_ = 0, clock_ = 0;
  std::int64_t next_ = 0;
  PrefixTree tree_;
  std::unordered_map<std::int64_t, Entry> entries_;
};

}  // namespace tailor
