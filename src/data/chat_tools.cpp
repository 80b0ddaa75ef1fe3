#include "data/chat_tools.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/unicode.h"

namespace tailor {
namespace {

Error wrong(std::string what, std::string hint = "") {
  return {ErrorCode::kInvalidArgument, std::move(what), std::move(hint)};
}

std::string shown(const Json& value) {
  return shorten(dump_json(value), 60);
}

/// JSON that is kept as a text.
Result<Json> unpacked(const Json& value, std::string_view what) {
  if (!value.is_string()) return value;
  return parse_json(value.get_ref<const std::string&>(), what);
}

Status check_name(const Json& function, const std::string& what) {
  const auto name = function.find("name");
  if (name != function.end() && name->is_string() && !is_blank(name->get_ref<const std::string&>())) return {};
  return wrong(fmt::format("{} has no name", what), "a function has a \"name\" that is a text");
}

Status check_characters(const Json& value, std::string_view what) {
  if (dump_json(value).find("\\u0000") == std::string::npos) return {};
  return wrong(fmt::format("{} holds a NUL character", what), "take the character out");
}

/// {"name", "arguments"} with the arguments as an object.
Result<Json> read_call(const Json& function, const std::string& what) {
  if (!function.is_object()) return wrong(fmt::format("expected {} to be an object, saw {}", what, shown(function)));
  TAILOR_CHECK(check_name(function, what));
  Json arguments = Json::object();
  if (const auto given = function.find("arguments"); given != function.end() && !given->is_null()) {
    const bool empty = given->is_string() && is_blank(given->get_ref<const std::string&>());
    if (!empty) {
      auto read = unpacked(*given, "arguments");
      if (!read) {
        return wrong(fmt::format("the arguments of {} are not valid JSON: {}", what, shown(*given)),
                     "arguments are an object, or a JSON text of one");
      }
      arguments = std::move(*read);
    }
  }
  if (!arguments.is_object()) {
    return wrong(fmt::format("expected the arguments of {} to be an object, saw {}", what, shown(arguments)),
                 "such as {\"city\": \"Bern\"}");
  }
  TAILOR_CHECK(check_characters(arguments, fmt::format("the arguments of {}", what)));
  return Json{{"name", function.at("name")}, {"arguments", std::move(arguments)}};
}

std::vector<std::string> ids_of(const Json& calls) {
  std::vector<std::string> ids;
  for (const Json& call : calls) {
    if (call.contains("id")) ids.push_back(call.at("id").get<std::string>());
  }
  return ids;
}

}  // namespace

Result<Json> read_tools(const Json& given, std::string_view key) {
  auto read = unpacked(given, key);
  if (!read) return wrong(fmt::format("'{}' is a text that is not valid JSON: {}", key, shown(given)));
  const Json& tools = *read;
  if (tools.is_null() || (tools.is_array() && tools.empty())) return Json();
  if (!tools.is_array()) return wrong(fmt::format("expected '{}' to be a list of tools, saw {}", key, shown(tools)));
  TAILOR_CHECK(check_characters(tools, fmt::format("'{}'", key)));
  Json out = Json::array();
  for (const Json& tool : tools) {
    const std::string what = fmt::format("tool {} of '{}'", out.size() + 1, key);
    if (!tool.is_object()) return wrong(fmt::format("expected {} to be an object, saw {}", what, shown(tool)));
    const bool wrapped = tool.contains("function");
    if (wrapped && tool.value("type", Json("function")) != "function")
      return wrong(fmt::format("{} is of type {}; only functions can be learnt", what, shown(tool.at("type"))));
    const Json& function = wrapped ? tool.at("function") : tool;
    if (!function.is_object()) return wrong(fmt::format("expected {} to be an object, saw {}", what, shown(function)));
    TAILOR_CHECK(check_name(function, what));
    out.push_back(Json{{"type", "function"}, {"function", function}});
  }
  return out;
}

Result<Json> read_tool_calls(const Json& calls) {
  if (!calls.is_array()) return wrong(fmt::format("expected 'tool_calls' to be a list, saw {}", shown(calls)));
  if (calls.empty()) return Json();
  Json out = Json::array();
  for (const Json& call : calls) {
    const std::string what = fmt::format("call {} of 'tool_calls'", out.size() + 1);
    if (!call.is_object()) return wrong(fmt::format("expected {} to be an object, saw {}", what, shown(call)));
    TAILOR_TRY(Json function, read_call(call.contains("function") ? call.at("function") : call, what));
    Json made{{"type", "function"}};
    if (const auto id = call.find("id"); id != call.end() && !id->is_null()) {
      if (!id->is_string()) return wrong(fmt::format("expected the id of {} to be a text, saw {}", what, shown(*id)));
      made["id"] = *id;
    }
    made["function"] = std::move(function);
    out.push_back(std::move(made));
  }
  return out;
}

Result<Json> read_function_call(const Json& given, std::string_view key) {
  auto read = unpacked(given, key);
  if (!read)
    return wrong(fmt::format("'{}' is a text that is not valid JSON: {}", key, shown(given)),
                 "such as {\"name\": \"get_weather\", \"arguments\": {\"city\": \"Bern\"}}");
  const Json list = read->is_array() ? *read : Json::array({*read});
  Json out = Json::array();
  for (const Json& call : list) {
    TAILOR_TRY(Json function, read_call(call, fmt::format("'{}'", key)));
    out.push_back(Json{{"type", "function"}, {"function", std::move(function)}});
  }
  return out;
}

Status check_tool_turns(std::span<const ChatTurn> turns) {
  const Json* calls = nullptr;  // that may be answered now
  bool answered = true;
  for (std::size_t i = 0; i < turns.size(); ++i) {
    const ChatTurn& turn = turns[i];
    if (turn.role == "tool") {
      if (calls == nullptr) {
        return wrong(fmt::format("turn {} is a tool's answer, but the assistant has called no tool before it", i + 1),
                     "a tool's answer follows the assistant's message with the call");
      }
      const std::vector<std::string> ids = ids_of(*calls);
      if (!turn.tool_call_id.empty() && !ids.empty() &&
          std::find(ids.begin(), ids.end(), turn.tool_call_id) == ids.end()) {
        return wrong(fmt::format("turn {} answers the call '{}'; the calls before it are '{}'", i + 1,
                                 shorten(turn.tool_call_id, 40), fmt::join(ids, "', '")),
                     "'tool_call_id' is the id of the call");
      }
      answered = true;
      continue;
    }
    if (!answered) {
      return wrong(
          fmt::format("turn {} calls a tool, but turn {} is the {}'s; expected the tool's answer", i, i + 1, turn.role),
          "a message of the role 'tool' follows the call");
    }
    calls = turn.tool_calls.is_array() && !turn.tool_calls.empty() ? &turn.tool_calls : nullptr;
    answered = calls == nullptr;
  }
  return {};
}

}  // namespace tailor
