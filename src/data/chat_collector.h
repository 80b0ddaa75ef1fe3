#pragma once
/// Gathers the examples of one file: one shape for all, nothing twice, warnings with counts. Part of chat_examples.h.

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/result.h"
#include "data/chat_examples.h"
#include "data/chat_rules.h"

namespace tailor {

enum class ChatPlaces : std::uint8_t { kLines, kElements };  // what the numbers of records count

class ChatCollector {
 public:
  ChatCollector(std::string file, ChatPlaces places, const ChatReadOptions& options);
  const ChatReadOptions& options() const { return options_; }
  const std::string& file() const { return data_.file; }

  /// Shape of record `number`, which must be that of the first record.
  Result<ChatShape> shape_of(std::uint64_t number, std::span<const ChatField> fields);
  /// Takes an example of shape_of()'s shape whose texts and roles are checked, and checks the rest.
  Status add(std::uint64_t number, ExampleForm form, std::vector<ChatTurn> turns, Json tools = nullptr);
  void note_unused(std::uint64_t number, std::string_view key);

  /// The error with file and place in front.
  Error at(std::uint64_t number, const Error& error) const;
  Result<ChatData> finish();

 private:
  struct Tally {
    std::size_t count = 0;
    std::uint64_t first = 0;
    void add(std::uint64_t number) {
      if (count++ == 0) first = number;
    }
  };
  bool is_duplicate(const ChatExample& example);
  std::string place(std::uint64_t number) const;      // "line 7" or "element 7"
  std::string as_first(std::string_view what) const;  // "expected ... as on line 1"
  void warn(const Tally& tally, std::string_view one, std::string_view many);

  ChatPlaces places_;
  ChatReadOptions options_;
  ChatData data_;
  std::optional<ChatShape> shape_;
  std::optional<ExampleForm> form_;
  std::uint64_t first_ = 0;
  Tally duplicates_, left_out_, cut_;
  std::map<std::string, Tally, std::less<>> unused_;
  Tally more_unused_;                                         // keys beyond those that unused_ names
  std::unordered_multimap<std::uint64_t, std::size_t> seen_;  // hash of turns -> place in data_.examples
};

}  // namespace tailor
