#include "serve/tool_calls.h"

#include <fmt/format.h>

#include <algorithm>

#include "data/chat_tools.h"
#include "store/random_id.h"

namespace tailor {
namespace {

constexpr std::size_t kMostTools = 128;
constexpr const char* kProbe = "probe_tool_name";

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

}  // namespace

std::optional<ToolFormat> ToolFormat::of(const ChatTemplate& chat_template) {
  const Json tools{{{"type", "function"},
                    {"function",
                     {{"name", kProbe},
                      {"description", "d"},
                      {"parameters", {{"type", "object"}, {"properties", Json::object()}}}}}}};
  const ChatAbilities& abilities = chat_template.abilities(true);
  if (!abilities.tools || !abilities.tool_calls) return std::nullopt;
  const ChatMessage user{.role = "user", .content = "u"};
  ChatMessage call{.role = "assistant", .content = ""};
  call.tool_calls = {{{"type", "function"},
                      {"id", "abcdefghi"},
                      {"function", {{"name", kProbe}, {"arguments", {{"probe_key", "probe_value"}}}}}}};
  const auto before = chat_template.render(std::vector{user}, tools, true);
  const auto after = chat_template.render(std::vector{user, call}, tools, false);
  if (!before.has_value() || !after.has_value()) return std::nullopt;
  const std::string& whole = after->bytes;
  const std::string& asked = before->bytes;
  const std::size_t from = whole.starts_with(asked) ? asked.size() : std::min(whole.size(), asked.size());
  const std::size_t name = whole.find(kProbe, from);
  if (name == std::string::npos) return std::nullopt;
  // The innermost object before the name that holds both name and arguments.
  for (std::size_t brace = whole.rfind('{', name); brace != std::string::npos && brace >= from;
       brace = brace == 0 ? std::string::npos : whole.rfind('{', brace - 1)) {
    const std::string_view text = json_object_at_front(std::string_view(whole).substr(brace));
    const Json object = Json::parse(text, nullptr, false);
    if (!object.is_object()) continue;
    ToolFormat out;
    for (const auto& [key, value] : object.items()) {
      if (value == kProbe) out.name_key = key;
      if (value.is_object() && value.contains("probe_key")) out.arguments_key = key;
    }
    if (out.name_key.empty() || out.arguments_key.empty()) continue;
    out.open = whole.substr(from, brace - from);
    // Up to the end of the turn, which is a control token's spelling.
    std::string rest = whole.substr(brace + text.size());
    rest.resize(std::min(rest.find("<|"), rest.size()));
    out.close = std::string(trimmed(rest));
    return out;
  }
  return std::nullopt;
}

bool ToolCallReader::take_call(std::string_view text) {
  constexpr int kDeepest = 64;
  if (json_deeper_than(text, kDeepest)) return false;
  const Json object = Json::parse(text, nullptr, false);
  if (!object.is_object() || !object.contains(format_.name_key) || !object[format_.name_key].is_string()) return false;
  const auto& name = object[format_.name_key].get_ref<const std::string&>();
  if (format_.open.empty() && std::find(tools_.begin(), tools_.end(), name) == tools_.end()) return false;
  const Json arguments = object.value(format_.arguments_key, Json(Json::object()));
  calls_.push_back(
      {random_id("call_", 24), name, arguments.is_string() ? arguments.get<std::string>() : dump_json(arguments)});
  return true;
}

std::string ToolCallReader::add(std::string_view text) {
  if (at_end()) return {};
  held_ += text;
  std::string shown;
  const std::string_view open = trimmed(format_.open), close = format_.close;
  const auto show = [&](std::string_view what) {
    shown += what;
    said_ = said_ || !trimmed(what).empty();
  };
  for (;;) {
    if (inside_) {
      held_.erase(0, std::min(held_.find_first_not_of(" \t\r\n"), held_.size()));
      const std::string object(json_object_at_front(held_));
      if (object.empty()) return shown;
      held_.erase(0, object.size());
      inside_ = false;
      if (!take_call(object)) {
        show(open);
        show(object);
        continue;
      }
      if (at_end()) return shown;
      // What closes a call is no content.
      const std::string_view rest = trimmed(held_);
      if (!close.empty() && rest.starts_with(close)) held_ = std::string(rest.substr(close.size()));
      continue;
    }
    if (!close.empty()) {
      if (const std::string_view rest = trimmed(held_); !calls_.empty() && rest.starts_with(close))
        held_ = std::string(rest.substr(close.size()));
    }
    if (!calls_.empty() && trimmed(held_).empty()) return shown;
    std::size_t at = std::string::npos;
    std::size_t skipped = 0;
    if (open.empty()) {
      // The call is the answer itself: only at its beginning, or after another.
      const std::size_t first = held_.find_first_not_of(" \t\r\n");
      if (!said_ && first != std::string::npos && held_[first] == '{') at = first;
    } else {
      at = held_.find(open);
      skipped = open.size();
    }
    if (at != std::string::npos) {
      const std::string_view before = std::string_view(held_).substr(0, at);
      if (calls_.empty() || !trimmed(before).empty()) show(before);  // blanks between two calls are nobody's
      held_.erase(0, at + skipped);
      inside_ = true;
      continue;
    }
    std::size_t kept = 0;  // that may be the beginning of the opening
    for (std::size_t n = std::min(open.size(), held_.size()); n > 0 && kept == 0; --n) {
      if (std::string_view(held_).substr(held_.size() - n) == open.substr(0, n)) kept = n;
    }
    if (!calls_.empty() && !close.empty()) kept = held_.size();  // may be a closing that is not whole
    show(std::string_view(held_).substr(0, held_.size() - kept));
    held_.erase(0, held_.size() - kept);
    return shown;
  }
}

std::string ToolCallReader::finish() {
  std::string rest = std::exchange(held_, {});
  if (at_end()) return {};
  if (inside_) rest = std::string(trimmed(format_.open)) + rest;  // it began and was no call
  inside_ = false;
  if (!calls_.empty() && trimmed(rest).empty()) rest.clear();
  return rest;
}

namespace {

/// What of a list that read_tools() took nobody acts on. `held`: calls follow the schemas of their arguments.
void note_unread(FieldReader& in, const Json& tools, bool held) {
  const auto read_function = [&](FieldReader& function) {
    for (const char* known : {"name", "description", "parameters"}) function.accept(known);
    if (function.boolean("strict", false) && !held) in.ignore(function.path_of("strict"));
  };
  for (std::size_t i = 0; i < tools.size(); ++i) {
    FieldReader tool(tools[i], fmt::format("tools[{}]", i));
    if (const Json* inner = tool.find("function")) {
      FieldReader function(*inner, tool.path_of("function"));
      read_function(function);
      tool.accept("type");
      tool.join(function);
    } else {
      read_function(tool);  // as the older "functions" had it
    }
    in.join(tool);
  }
}

void read_choice(FieldReader& in, ToolRequest& out) {
  constexpr const char* kExpected =
      "expected none, auto, required or {\"type\": \"function\", \"function\": {\"name\": …}}";
  const Json* choice = in.find("tool_choice");
  if (choice == nullptr) return;
  if (choice->is_string()) {
    const auto& word = choice->get_ref<const std::string&>();
    if (word == "none")
      out.tools = nullptr;
    else if (word == "required")
      out.forced = "*";
    else if (word != "auto")
      in.fail("tool_choice", kExpected);
  } else if (choice->is_object() && choice->contains("function") && (*choice)["function"].is_object() &&
             (*choice)["function"].value("name", Json()).is_string()) {
    FieldReader named(*choice, "tool_choice"), function((*choice)["function"], "tool_choice.function");
    named.accept("type");
    named.accept("function");
    out.forced = function.required_text("name");
    named.join(function);
    in.join(named);
  } else {
    in.fail("tool_choice", kExpected);
  }
  if (out.forced.empty() || in.error()) return;
  const bool known = !out.tools.is_null() &&
                     (out.forced == "*" || std::any_of(out.tools.begin(), out.tools.end(), [&](const Json& tool) {
                        return tool["function"]["name"] == out.forced;
                      }));
  if (!known) in.fail("tool_choice", "names a function that is none of the tools");
}

}  // namespace

ToolRequest read_tool_request(FieldReader& in) {
  ToolRequest out;
  out.parallel = in.boolean("parallel_tool_calls", true);
  const Json* tools = in.find("tools");
  if (tools != nullptr) {
    if (!tools->is_array() || tools->size() > kMostTools) {
      in.fail("tools", fmt::format("expected a list of at most {} functions", kMostTools));
      return out;
    }
    Result<Json> read = read_tools(*tools, "tools");
    if (!read.has_value()) {
      in.fail("tools", read.error().message);
      return out;
    }
    out.tools = std::move(*read);
  }
  read_choice(in, out);
  if (tools != nullptr) note_unread(in, *tools, !out.forced.empty());
  return out;
}

std::vector<std::string> ToolRequest::names() const {
  std::vector<std::string> out;
  for (const Json& tool : tools) out.push_back(tool["function"]["name"].get<std::string>());
  return out;
}

Json call_schema(const ToolFormat& format, const ToolRequest& request) {
  Json calls = Json::array();
  for (const Json& tool : request.tools) {
    const Json& function = tool["function"];
    if (request.forced != "*" && function["name"] != request.forced) continue;
    Json parameters = function.value("parameters", Json(nullptr));
    if (!parameters.is_object() || parameters.empty()) parameters = {{"type", "object"}};
    calls.push_back(
        {{"type", "object"},
         {"properties", {{format.name_key, {{"const", function["name"]}}}, {format.arguments_key, parameters}}},
         {"required", {format.name_key, format.arguments_key}},
         {"additionalProperties", false}});
  }
  return calls.size() == 1 ? calls[0] : Json{{"anyOf", std::move(calls)}};
}

}  // namespace tailor
