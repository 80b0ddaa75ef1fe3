#pragma once
/// A model's own chat template.

#include <span>
#include <string>

#include "core/result.h"

namespace tailor {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

/// The conversation as the model was trained to see it; `answer_follows`: ready for the assistant's answer.
/// `chat_template` is the model's (LabelScorer::chat_template()). llama.cpp recognises the usual families by their text
/// and runs no template code; an unknown one is kUnavailable, an empty one kInvalidArgument. Contents must not hold
/// NUL.
Result<std::string> apply_chat_template(const std::string& chat_template, std::span<const ChatMessage> messages,
                                        bool answer_follows = true);

}  // namespace tailor
