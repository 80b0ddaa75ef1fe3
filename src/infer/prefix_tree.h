#pragma once
/// Token sequences as a radix tree: which of them begins as a prompt does, and how far.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

namespace tailor {

/// Entries are numbered by the caller. What different spaces hold never meets (an adapter's keys and values are not
/// another's; a client's are not another client's). Threads: one at a time.
class PrefixTree {
 public:
  using Tokens = std::span<const std::int32_t>;
  struct Match {
    std::size_t length = 0;   // tokens in common
    std::int64_t entry = -1;  // that begins with them; -1: none
  };
  using Usable = std::function<bool(std::int64_t entry)>;

  PrefixTree();
  PrefixTree(PrefixTree&&) noexcept;
  PrefixTree& operator=(PrefixTree&&) noexcept;
  ~PrefixTree();

  /// The entry's tokens; those it had before are forgotten.
  void insert(const std::string& space, Tokens tokens, std::int64_t entry);
  void remove(std::int64_t entry);
  /// The usable entry with the longest common beginning; none where it is empty.
  Match longest(const std::string& space, Tokens tokens, const Usable& usable = {}) const;
  /// Entries, apart from `entry`, whose tokens are a beginning of its own, or the same.
  std::vector<std::int64_t> beginnings_of(std::int64_t entry) const;
  /// Whether another entry goes on from this one's tokens, or has the same.
  bool continued(std::int64_t entry) const;
  std::size_t size() const { return homes_.size(); }

 private:
  struct Node;
  struct Home {
    Node* node;
    std::string space;
  };
  std::map<std::string, std::unique_ptr<Node>> roots_;
  std::unordered_map<std::int64_t, Home> homes_;
};

}  // namespace tailor
