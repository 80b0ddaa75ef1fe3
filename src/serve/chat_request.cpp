#include "serve/chat_request.h"

#include <fmt/format.h>

namespace tailor {
namespace {

/// A text, or the texts of its parts.
std::string read_content(FieldReader& in, bool may_be_missing) {
  const Json* content = in.find("content");
  if (content == nullptr) {
    if (!may_be_missing) in.fail("content", "is missing");
    return {};
  }
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) {
    in.fail("content", "expected a string or a list of parts");
    return {};
  }
  std::string out;
  for (std::size_t i = 0; i < content->size(); ++i) {
    FieldReader part((*content)[i], fmt::format("{}[{}]", in.path_of("content"), i));
    const std::string type = part.text("type");
    if (!part.error() && type != "text" && type != "input_text" && type != "refusal")
      part.fail("type", fmt::format("parts of type '{}' cannot be read; this server reads texts", type.substr(0, 64)));
    else
      out += type == "refusal" ? part.required_text("refusal") : part.required_text("text");
    in.join(part);
    if (in.error()) return out;
  }
  return out;
}

/// Arguments come as a JSON text; templates take the object.
Json read_tool_calls(FieldReader& in) {
  const Json* calls = in.find("tool_calls");
  if (calls == nullptr) return nullptr;
  if (!calls->is_array() || calls->size() > 128) {
    in.fail("tool_calls", "expected a list of at most 128");
    return nullptr;
  }
  Json out = Json::array();
  for (std::size_t i = 0; i < calls->size(); ++i) {
    FieldReader call((*calls)[i], fmt::format("{}[{}]", in.path_of("tool_calls"), i));
    call.accept("type");
    const std::string id = call.text("id", "", 256);
    const Json* function = call.find("function");
    if (function == nullptr) {
      call.fail("function", "is missing");
    } else {
      FieldReader inner(*function, call.path_of("function"));
      const std::string name = inner.required_text("name"), text = inner.text("arguments", "{}");
      // With a limit of its own: brackets in a text are not those of the request.
      Result<Json> arguments = parse_json(text, "arguments");
      if (!arguments.has_value() || !arguments->is_object())
        inner.fail("arguments", "expected the text of a JSON object");
      call.join(inner);
      if (!inner.error())
        out.push_back(
            {{"type", "function"}, {"id", id}, {"function", {{"name", name}, {"arguments", std::move(*arguments)}}}});
    }
    in.join(call);
    if (in.error()) return nullptr;
  }
  return out;
}

}  // namespace

std::vector<ChatMessage> read_messages(FieldReader& in, const ApiLimits& limits) {
  std::vector<ChatMessage> out;
  const Json* messages = in.find("messages");
  if (messages == nullptr || !messages->is_array() || messages->empty()) {
    in.fail("messages", "expected a list of at least one message",
            messages == nullptr ? "missing_required_parameter" : "");
    return out;
  }
  if (messages->size() > limits.messages) {
    in.fail("messages", fmt::format("expected at most {}, got {}", limits.messages, messages->size()));
    return out;
  }
  for (std::size_t i = 0; i < messages->size(); ++i) {
    FieldReader message((*messages)[i], fmt::format("messages[{}]", i));
    ChatMessage& next = out.emplace_back();
    next.role = message.required_text("role");
    if (next.role == "developer") next.role = "system";
    if (next.role == "function") next.role = "tool";
    const bool known = next.role == "system" || next.role == "user" || next.role == "assistant" || next.role == "tool";
    if (!message.error() && !known)
      message.fail("role",
                   fmt::format("'{}' is none of system, developer, user, assistant, tool", next.role.substr(0, 64)));
    if (next.role == "assistant") {
      next.tool_calls = read_tool_calls(message);
      next.reasoning = message.text("reasoning_content");
      if (std::string other = message.text("reasoning"); next.reasoning.empty()) next.reasoning = std::move(other);
    }
    next.content = read_content(message, !next.tool_calls.is_null());
    next.tool_call_id = message.text("tool_call_id", "", 256);
    next.name = message.text("name", "", 256);
    in.join(message);
    if (in.error()) return out;
  }
  return out;
}

}  // namespace tailor
