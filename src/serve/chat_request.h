#pragma once
/// The messages of a chat completion.

#include <span>
#include <vector>

#include "infer/chat_template.h"
#include "serve/api_context.h"

namespace tailor {

/// Roles system, developer, user, assistant, tool; contents as texts or parts of type text. What is wrong, and what no
/// template has a place for (refusal, reasoning_content, audio, function_call, …), is left in `in`.
std::vector<ChatMessage> read_messages(FieldReader& in, const ApiLimits& limits);

}  // namespace tailor
