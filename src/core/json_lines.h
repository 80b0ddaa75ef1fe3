#pragma once
/// Text with one JSON document a line, a line at a time.

#include <cstdint>
#include <functional>
#include <string_view>

#include "core/json.h"
#include "core/result.h"

namespace tailor {

/// Calls `take` with every document and the number of its line (from 1); empty lines are skipped. The first error ends
/// it: that of a line, which is named "where:line", or one of `take`. With `drop_partial_last` as in read_jsonl().
using TakeJsonLine = std::function<Status(Json value, std::uint32_t line)>;
Status each_json_line(std::string_view text, std::string_view where, const TakeJsonLine& take,
                      bool drop_partial_last = false);

}  // namespace tailor
