#include "data/chat_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <initializer_list>

#include "text/edit_distance.h"
#include "text/unicode.h"

namespace tailor {
namespace {

constexpr std::size_t kShownKeys = 8;
constexpr std::size_t kShownCodePoints = 40;

Error wrong(std::string what, std::string hint = "") {
  return {ErrorCode::kInvalidArgument, std::move(what), std::move(hint)};
}

const ChatField* find(std::span<const ChatField> fields, std::string_view name) {
  const auto found = std::find_if(fields.begin(), fields.end(), [&](const ChatField& f) { return f.name == name; });
  return found == fields.end() ? nullptr : &*found;
}
bool has(std::span<const ChatField> fields, std::string_view name) {
  return find(fields, name) != nullptr;
}
bool is_flag(const ChatField* field) {
  return field && (field->kind == ChatFieldKind::kBool || field->kind == ChatFieldKind::kNumber);
}

/// The keys of `fields` that make it preference data; none where it is not.
std::vector<std::string> preference_keys(std::span<const ChatField> fields) {
  std::vector<std::string> keys;
  for (const std::string_view name :
       {"chosen", "rejected", "preferred_output", "non_preferred_output", "kto_tag", "completions"}) {
    const ChatField* const field = find(fields, name);
    if (!field || (is_flag(field) && name != "kto_tag")) continue;  // "rejected": false is a note about the row
    if (name == "completions" && !has(fields, "labels")) continue;
    keys.emplace_back(name);
  }
  if (has(fields, "completion") && is_flag(find(fields, "label"))) keys.emplace_back("label");
  return keys;
}

/// A column or key beside "text" that says the text is there to be answered, not to be learnt as it is.
std::string_view partner_of_text(std::span<const ChatField> fields) {
  for (const std::string_view name :
       {"label", "labels", "intent", "category", "class", "sentiment", "target", "targets", "summary", "summaries",
        "highlights", "answer", "answers", "response", "output", "completion", "question", "entities"}) {
    if (has(fields, name)) return name;
  }
  return "";
}

constexpr std::string_view kExpectedKeys =
    "a row has \"messages\" (chat), \"conversations\" (ShareGPT), \"instruction\" and \"output\", \"prompt\" and "
    "\"completion\", or \"text\"";

std::string unknown_shape_hint(std::span<const ChatField> fields) {
  std::vector<std::string> absent = {"messages", "conversations", "instruction", "output",
                                     "prompt",   "completion",    "text"};
  std::erase_if(absent, [&](const std::string& name) { return has(fields, name); });
  for (const ChatField& field : fields) {
    const std::string nearest = nearest_name(field.name, absent);
    if (!nearest.empty()) {
      return fmt::format("did you mean '{}' instead of '{}'? {}", nearest, shorten(field.name, kShownCodePoints),
                         kExpectedKeys);
    }
  }
  if (fields.size() == 1 && fields[0].kind == ChatFieldKind::kList) {
    return fmt::format("if the list '{}' holds the rows, make that list the whole file; {}",
                       shorten(fields[0].name, kShownCodePoints), kExpectedKeys);
  }
  if (has(fields, "completion")) return fmt::format("'prompt' is missing beside 'completion'; {}", kExpectedKeys);
  if (has(fields, "output")) return fmt::format("'instruction' is missing beside 'output'; {}", kExpectedKeys);
  return fmt::format("rename the keys: {}", kExpectedKeys);
}

constexpr std::string_view kToolHint =
    "a call stands in \"tool_calls\" of the assistant's message, its answer in a message of the role \"tool\"";

}  // namespace

std::string_view to_string(ChatShape shape) {
  switch (shape) {
    case ChatShape::kMessages:
      return "chat messages";
    case ChatShape::kShareGpt:
      return "ShareGPT conversations";
    case ChatShape::kAlpaca:
      return "instructions";
    case ChatShape::kBedrock:
      return "Bedrock conversations";
    case ChatShape::kPromptCompletion:
      return "prompts with completions";
    case ChatShape::kText:
      return "plain texts";
  }
  return "";
}

std::string_view to_string(ChatFieldKind kind) {
  switch (kind) {
    case ChatFieldKind::kText:
      return "a text";
    case ChatFieldKind::kList:
      return "a list";
    case ChatFieldKind::kObject:
      return "an object";
    case ChatFieldKind::kNumber:
      return "a number";
    case ChatFieldKind::kBool:
      return "true or false";
  }
  return "";
}

std::string list_keys(std::span<const ChatField> fields) {
  if (fields.empty()) return "no keys";
  std::vector<std::string> quoted;
  for (const ChatField& field : fields.first(std::min(fields.size(), kShownKeys)))
    quoted.push_back(fmt::format("'{}'", shorten(field.name, kShownCodePoints)));
  const std::string more =
      fields.size() > kShownKeys ? fmt::format(" and {} more", fields.size() - kShownKeys) : std::string();
  return fmt::format("the key{} {}{}", fields.size() == 1 ? "" : "s", fmt::join(quoted, ", "), more);
}

Error missing_key(std::string_view name, std::span<const ChatField> fields) {
  std::vector<std::string> names;
  for (const ChatField& field : fields) names.emplace_back(field.name);
  const std::string nearest = nearest_name(name, names);
  return wrong(fmt::format("expected '{}', saw {}", name, list_keys(fields)),
               nearest.empty()
                   ? ""
                   : fmt::format("did you mean '{}' instead of '{}'?", name, shorten(nearest, kShownCodePoints)));
}

bool is_preference_data(std::span<const ChatField> fields) {
  return !preference_keys(fields).empty();
}

Result<ChatShape> recognise_shape(std::span<const ChatField> fields) {
  if (const auto keys = preference_keys(fields); !keys.empty()) {
    return wrong(fmt::format("this is preference data ('{}'), which training does not take", fmt::join(keys, "', '")),
                 "to learn from the preferred answers alone, write them as \"completion\" beside their \"prompt\", or "
                 "as the assistant's messages");
  }
  if (has(fields, "messages")) return has(fields, "schemaVersion") ? ChatShape::kBedrock : ChatShape::kMessages;
  if (has(fields, "conversations")) return ChatShape::kShareGpt;
  const bool prompt = has(fields, "prompt");
  if (has(fields, "instruction") && !(prompt && has(fields, "completion"))) return ChatShape::kAlpaca;
  if (prompt) return ChatShape::kPromptCompletion;
  if (has(fields, "text")) {
    if (const std::string_view partner = partner_of_text(fields); !partner.empty()) {
      return wrong(fmt::format("'text' stands beside '{}': that is no text to be learnt as it is", partner),
                   fmt::format("rename the keys to \"prompt\" and \"completion\", or to \"instruction\", \"input\" and "
                               "\"output\"; or keep \"text\" alone"));
    }
    return ChatShape::kText;
  }
  if (fields.empty()) return wrong("the row has no key with a value", std::string(kExpectedKeys));
  return wrong(fmt::format("{} make{} none of the known shapes of training data", list_keys(fields),
                           fields.size() == 1 ? "s" : ""),
               unknown_shape_hint(fields));
}

Result<std::string> known_role(std::string_view role, ChatShape shape) {
  struct Name {
    std::string_view seen, meant;
  };
  static constexpr std::array kRoles = {Name{"system", "system"}, Name{"developer", "system"},
                                        Name{"user", "user"},     Name{"assistant", "assistant"},
                                        Name{"tool", "tool"},     Name{"function", "tool"}};
  static constexpr std::array kShareGptRoles = {Name{"system", "system"},       Name{"human", "user"},
                                                Name{"gpt", "assistant"},       Name{"user", "user"},
                                                Name{"assistant", "assistant"}, Name{"observation", "tool"},
                                                Name{"tool", "tool"},           Name{"function_call", "assistant"}};
  static constexpr std::array kOtherNames = {
      Name{"human", "user"},        Name{"customer", "user"},   Name{"gpt", "assistant"},
      Name{"bot", "assistant"},     Name{"ai", "assistant"},    Name{"model", "assistant"},
      Name{"chatgpt", "assistant"}, Name{"agent", "assistant"}, Name{"completion", "assistant"}};
  const std::span<const Name> roles =
      shape == ChatShape::kShareGpt ? std::span<const Name>(kShareGptRoles) : std::span<const Name>(kRoles);
  for (const Name& name : roles) {
    if (name.seen == role) return std::string(name.meant);
  }
  for (const std::string_view tool : {"tool", "function", "function_call", "tool_call", "observation", "ipython"}) {
    if (role == tool)
      return wrong(fmt::format("role '{}' belongs to calls of tools in another shape", role), std::string(kToolHint));
  }
  std::vector<std::string> expected;
  for (const Name& name : roles) {
    if (name.seen != "function") expected.emplace_back(name.seen);  // the older name of "tool"
  }
  std::string nearest = nearest_name(role, expected);
  const std::string folded = fold(role.substr(0, 64));
  for (const Name& name : kOtherNames) {
    if (nearest.empty() && name.seen == folded) nearest = name.meant;
  }
  return wrong(fmt::format("unknown role '{}'; expected one of '{}'", shorten(role, kShownCodePoints),
                           fmt::join(expected, "', '")),
               nearest.empty() ? "" : fmt::format("did you mean '{}'?", nearest));
}

Status append_text(std::string& to, std::string_view text, std::string_view what, std::size_t max_bytes) {
  if (text.size() > max_bytes || to.size() > max_bytes - text.size()) {
    return wrong(
        fmt::format("{} holds {} bytes of text; the limit is {}", what, to.size() + text.size(), max_bytes),
        "raise --max-text-bytes if it is meant; a model reads only so many tokens at once, so split long texts");
  }
  if (const std::size_t zero = text.find('\0'); zero != std::string_view::npos) {
    return wrong(fmt::format("{} holds a NUL character (after {} bytes)", what, to.size() + zero),
                 "the text may be damaged; take the character out");
  }
  to += text;
  return {};
}

Result<std::string> checked_text(std::string_view text, std::string_view what, std::size_t max_bytes) {
  std::string copy;
  TAILOR_CHECK(append_text(copy, text, what, max_bytes));
  if (is_blank(copy)) return wrong(fmt::format("{} is empty", what), "give it a text, or take the row out");
  return copy;
}

Result<std::vector<ChatTurn>> instruction_turns(const InstructionTexts& texts, std::size_t max_bytes) {
  std::vector<ChatTurn> turns;
  if (!is_blank(texts.system)) {
    TAILOR_TRY(std::string system, checked_text(texts.system, "'system'", max_bytes));
    turns.push_back({"system", std::move(system), false});
  }
  for (std::size_t i = 0; i < texts.history.size(); ++i) {
    const std::string what = fmt::format("pair {} of 'history'", i + 1);
    TAILOR_TRY(std::string user, checked_text(texts.history[i].first, what, max_bytes));
    TAILOR_TRY(std::string assistant, checked_text(texts.history[i].second, what, max_bytes));
    turns.push_back({"user", std::move(user), false});
    turns.push_back({"assistant", std::move(assistant), true});
  }
  TAILOR_TRY(std::string user, checked_text(texts.instruction, "'instruction'", max_bytes));
  if (!is_blank(texts.input)) {
    TAILOR_CHECK(append_text(user, "\n\n", "'instruction' with 'input'", max_bytes));
    TAILOR_CHECK(append_text(user, texts.input, "'instruction' with 'input'", max_bytes));
  }
  turns.push_back({"user", std::move(user), false});
  TAILOR_TRY(std::string output, checked_text(texts.output, "'output'", max_bytes));
  turns.push_back({"assistant", std::move(output), true});
  return turns;
}

Result<std::vector<ChatTurn>> completion_turns(std::string_view prompt, std::string_view completion,
                                               std::size_t max_bytes) {
  std::vector<ChatTurn> turns(2);
  turns[0].role = "prompt";
  TAILOR_TRY(turns[0].content, checked_text(prompt, "'prompt'", max_bytes));
  turns[1].role = "completion";
  turns[1].learn = true;
  TAILOR_TRY(turns[1].content, checked_text(completion, "'completion'", max_bytes));
  return turns;
}

Status check_order(std::span<const ChatTurn> turns) {
  std::string_view before;
  for (std::size_t i = 0; i < turns.size(); ++i) {
    const std::string& role = turns[i].role;
    if (role == "system" && i > 0) {
      return turns[0].role == "system" ? wrong(fmt::format("turns 1 and {} are both the system's", i + 1),
                                               "join them into one at the beginning")
                                       : wrong(fmt::format("turn {} is the system's; expected it first", i + 1),
                                               "move the system's text to the beginning");
    }
    if (role == "tool") {  // check_tool_turns() sees to these
      before = role;
      continue;
    }
    if (role == "assistant" && (before.empty() || before == "system")) {
      return wrong(fmt::format("turn {} is the assistant's before any of the user; expected the user's", i + 1),
                   "begin with what the user says; a greeting that is always the same can stand in the system's text");
    }
    if (role == before) {
      return wrong(fmt::format("turns {} and {} are both the {}'s; user and assistant must alternate", i, i + 1, role),
                   "join them into one turn");
    }
    before = role;
  }
  return {};
}

}  // namespace tailor
