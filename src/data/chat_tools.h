#pragma once
/// Tools in chat data: their definitions, the assistant's calls, and where answers may stand. All shapes become
/// OpenAI's present one. Errors tell what is wrong in the record; the caller adds file and line. Part of
/// chat_examples.h.

#include <span>
#include <string>
#include <string_view>

#include "core/json.h"
#include "core/result.h"
#include "data/chat_examples.h"

namespace tailor {

/// A row's "tools" ([{"type": "function", "function": {…}}], or the functions alone, as the older "functions" has them;
/// or a JSON text of either). Gives null for an empty list.
Result<Json> read_tools(const Json& tools, std::string_view key);

/// An assistant's "tool_calls". Arguments may be an object, or a JSON text of one. Gives null for an empty list.
Result<Json> read_tool_calls(const Json& calls);
/// The older "function_call" {"name", "arguments"}, or ShareGPT's, which is a JSON text: one call or a list.
Result<Json> read_function_call(const Json& call, std::string_view key);

/// A tool's answer follows calls or another answer and names one of those calls; calls are answered before the user
/// speaks again. For turns in which user and assistant are already known to be in order.
Status check_tool_turns(std::span<const ChatTurn> turns);

}  // namespace tailor
