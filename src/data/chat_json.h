#pragma once
/// Chat data as JSON: one object a line, or one array of objects. simdjson lives only in the .cpp. Part of
/// chat_examples.h.

#include <optional>
#include <string>
#include <string_view>

#include "core/result.h"
#include "data/chat_examples.h"

namespace tailor {

/// `text` is UTF-8 without byte order mark and NUL. A text that begins with [ is one array. `file` is for messages.
Result<ChatData> parse_chat_json(std::string_view text, std::string file, const ChatReadOptions& options);

/// Whether the first object in the text is of a known shape, or preference data; none where the text ends before the
/// object does. Reads no further than that object; takes any bytes.
std::optional<bool> first_object_is_chat(std::string_view text);

}  // namespace tailor
