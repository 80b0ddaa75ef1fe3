#pragma once
/// What holds for a record of chat data wherever it was read from. Errors tell what is wrong in the record; the caller
/// adds file and line. Part of chat_examples.h.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/result.h"
#include "data/chat_examples.h"

namespace tailor {

enum class ChatFieldKind : std::uint8_t { kText, kList, kObject, kNumber, kBool };
std::string_view to_string(ChatFieldKind kind);  // "a text", "a list", ...

/// A key of a JSON object whose value is not null, or a column.
struct ChatField {
  std::string_view name;
  ChatFieldKind kind = ChatFieldKind::kText;
};

/// "the keys 'a', 'b' and 3 more"; at most eight, each shortened.
std::string list_keys(std::span<const ChatField> fields);
/// "there is no 'content' among the keys ...", with the nearest key in the hint.
Error missing_key(std::string_view name, std::span<const ChatField> fields);

/// Rows that say which of two answers is better ("chosen", "rejected", ...).
bool is_preference_data(std::span<const ChatField> fields);
Result<ChatShape> recognise_shape(std::span<const ChatField> fields);

/// "system", "user", "assistant" or "tool".
Result<std::string> known_role(std::string_view role, ChatShape shape);

/// A copy of `text`, called `what` in errors, if it is at most `max_bytes` long, holds no NUL and is not blank.
Result<std::string> checked_text(std::string_view text, std::string_view what, std::size_t max_bytes);
/// Appends `text` unless that makes more than `max_bytes`.
Status append_text(std::string& to, std::string_view text, std::string_view what, std::size_t max_bytes);

struct InstructionTexts {
  std::string_view instruction, input, output, system;  // input and system may be blank: absent
  std::vector<std::pair<std::string_view, std::string_view>> history;
};
Result<std::vector<ChatTurn>> instruction_turns(const InstructionTexts& texts, std::size_t max_bytes);
Result<std::vector<ChatTurn>> completion_turns(std::string_view prompt, std::string_view completion,
                                               std::size_t max_bytes);

/// System first and once, then user and assistant in turns, the user first.
Status check_order(std::span<const ChatTurn> turns);

}  // namespace tailor
