#pragma once
/// Keys that other tools have and that mean nothing here. Each is in this list or is refused: none is dropped in
/// silence.

#include <string_view>
#include <vector>

#include "core/json.h"

namespace tailor {

struct ForeignKey {
  std::string_view name;  // a trailing '*' stands for any ending
  std::string_view tools;
  bool any_value = false;          // accepted whatever it says, with `what` as a note; else only what changes nothing:
  std::vector<Json> neutral = {};  // null, false where it is listed, "none", …; null and empty are always accepted
  std::string_view what;           // why it is accepted, or what to do in its place
};
const std::vector<ForeignKey>& foreign_keys();
const ForeignKey* find_foreign_key(std::string_view name);

/// Whether the value says what holds here anyway.
bool is_neutral(const ForeignKey& key, const Json& value);

}  // namespace tailor
