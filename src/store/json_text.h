#pragma once
/// JSON in columns.

#include <cstddef>
#include <string>
#include <string_view>

#include "core/json.h"
#include "core/result.h"

namespace tailor {

/// The text of a value that can be read back: kInvalidArgument where it has more than `most` bytes or nests deeper than
/// parse_json() takes. `what` names it: "request of a job".
Result<std::string> json_text(const Json& value, std::string_view what, std::size_t most);

}  // namespace tailor
