#pragma once
/// The fields of a JSON request: read by name, type and range, so that what is wrong is told by its name and what
/// nobody read is known.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "core/json.h"
#include "serve/api_result.h"

namespace tailor {

/// Reads one object. The first thing that is wrong is kept in error(); what is read after it are the usual values.
/// A field that is null counts as absent. An object within has a reader of its own, which is join()ed when it was read.
/// Threads: one at a time.
class FieldReader {
 public:
  /// `object` must outlive the reader. `path` stands before names in errors ("messages[0]").
  explicit FieldReader(const Json& object, std::string path = {});

  const Json* find(std::string_view name);  ///< null: absent; counts as read
  bool has(std::string_view name) { return find(name) != nullptr; }

  bool boolean(std::string_view name, bool usual);
  double number(std::string_view name, double usual, double least, double most);
  std::int64_t integer(std::string_view name, std::int64_t usual, std::int64_t least, std::int64_t most);
  std::string text(std::string_view name, std::string usual = {}, std::size_t most_bytes = SIZE_MAX);
  /// Must be there.
  std::string required_text(std::string_view name);
  /// A text or a list of texts.
  std::vector<std::string> texts(std::string_view name, std::size_t most, std::size_t most_bytes);
  /// `list`, of the field or a part of it, as ids of a vocabulary; none where it holds something else.
  std::vector<std::int32_t> token_ids(std::string_view name, const Json& list, std::int64_t vocabulary);
  /// Counts as read, whatever it holds.
  void accept(std::string_view name) { read_.insert(std::string(name)); }

  void fail(std::string_view name, std::string message, std::string code = {});
  void fail(ApiError error);
  const std::optional<ApiError>& error() const { return error_; }
  std::string path_of(std::string_view name) const;
  /// Takes over what is wrong with `inner` and what nobody read of it.
  void join(const FieldReader& inner);
  /// Told by unread(), since what it asks for is not done: a path ("tools[0].function.strict").
  void ignore(const std::string& path);
  /// Paths of fields that nobody asked for, also of objects that were joined. What all elements of a list have is named
  /// once, at the first of them. At most kMostUnread.
  std::vector<std::string> unread() const;
  static constexpr std::size_t kMostUnread = 64;

 private:
  const Json& object_;
  std::string path_;
  std::unordered_set<std::string> read_;
  std::optional<ApiError> error_;
  std::vector<std::string> ignored_;            // of objects within
  std::unordered_set<std::string> ignored_as_;  // the same without places in lists
};

/// Parses a request's body: an object, nested no deeper than 64, no name twice in one object, no number out of range.
ApiResult<Json> parse_body(std::string_view body);

}  // namespace tailor
