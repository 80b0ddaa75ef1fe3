#include "infer/chat_template.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "jinja/template.h"

namespace tailor {
namespace {

constexpr const char* kProbeId = "probe0001";  // nine letters and digits, as Mistral's templates want

bool has_calls(const ChatMessage& message) {
  return message.tool_calls.is_array() && !message.tool_calls.empty();
}

Json with_argument_text(Json calls) {
  for (Json& call : calls) {
    if (!call.contains("function")) continue;
    Json& function = call["function"];
    if (function.contains("arguments") && !function["arguments"].is_string())
      function["arguments"] = dump_json(function["arguments"]);
  }
  return calls;
}

Json probe_tools() {
  return Json{{{"type", "function"},
               {"function",
                {{"name", "probe_tool_name"},
                 {"description", "A tool."},
                 {"parameters",
                  {{"type", "object"},
                   {"properties", {{"probe_key", {{"type", "string"}, {"description", "A text."}}}}},
                   {"required", Json::array({"probe_key"})}}}}}}};
}

ChatMessage probe_call() {
  ChatMessage message{"assistant", ""};
  message.tool_calls =
      Json{{{"type", "function"},
            {"id", kProbeId},
            {"function", {{"name", "probe_call_name"}, {"arguments", {{"probe_key", "probe_value"}}}}}}};
  return message;
}

bool holds(const Result<MarkedText>& rendered, std::string_view part) {
  return rendered.has_value() && rendered->bytes.find(part) != std::string::npos;
}

constexpr const char* kDateForm = "%Y-%m-%dT%H:%M:%S";

}  // namespace

std::string template_date(std::time_t moment) {
  std::tm parts{};
  localtime_r(&moment, &parts);
  char out[32];
  return std::string(out, std::strftime(out, sizeof out, kDateForm, &parts));
}

std::optional<std::time_t> read_template_date(const std::string& text) {
  std::tm parts{};
  const char* end = strptime(text.c_str(), kDateForm, &parts);
  if (end == nullptr || *end != '\0') return std::nullopt;
  parts.tm_isdst = -1;
  const std::time_t moment = std::mktime(&parts);
  return moment == -1 ? std::nullopt : std::optional(moment);
}

struct ChatTemplate::Impl {
  JinjaTemplate jinja;
  Json special = Json::object();  // bos_token, …
  Json variables = Json::object();
  std::time_t now = 0;
  ChatAbilities abilities;

  Json message_json(const ChatMessage& message, bool null_content) const;
  Result<MarkedText> run(std::span<const ChatMessage> messages, const Json& tools, bool answer_follows,
                         bool null_content) const;
  Result<MarkedText> run(std::span<const ChatMessage> messages, const Json& tools, bool answer_follows) const;
  Status probe();
};

Json ChatTemplate::Impl::message_json(const ChatMessage& message, bool null_content) const {
  Json json{{"role", message.role}};
  if (abilities.content_parts)
    json["content"] = Json{{{"type", "text"}, {"text", message.content}}};
  else if (null_content && has_calls(message) && message.content.empty())
    json["content"] = nullptr;
  else
    json["content"] = message.content;
  if (has_calls(message))
    json["tool_calls"] = abilities.argument_text ? with_argument_text(message.tool_calls) : message.tool_calls;
  if (!message.tool_call_id.empty()) json["tool_call_id"] = message.tool_call_id;
  if (!message.name.empty()) json["name"] = message.name;
  if (!message.reasoning.empty()) json["reasoning_content"] = message.reasoning;
  return json;
}

Result<MarkedText> ChatTemplate::Impl::run(std::span<const ChatMessage> messages, const Json& tools,
                                           bool answer_follows, bool null_content) const {
  Json list = Json::array();
  for (const ChatMessage& message : messages) list.push_back(message_json(message, null_content));
  const Json follows = answer_follows, none = nullptr;
  std::vector<TemplateVariable> given{{"messages", &list, true},
                                      {"tools", tools.empty() ? &none : &tools, true},
                                      {"documents", &none},
                                      {"add_generation_prompt", &follows}};
  for (const auto* more : {&variables, &special}) {  // the first of a name counts
    for (const auto& [name, value] : more->items()) given.push_back({name, &value});
  }
  return jinja.render(given, now);
}

Result<MarkedText> ChatTemplate::Impl::run(std::span<const ChatMessage> messages, const Json& tools,
                                           bool answer_follows) const {
  Result<MarkedText> out = run(messages, tools, answer_follows, true);
  const bool null_content = std::any_of(messages.begin(), messages.end(),
                                        [](const ChatMessage& m) { return has_calls(m) && m.content.empty(); });
  if (out.has_value() || !null_content) return out;
  Result<MarkedText> again = run(messages, tools, answer_follows, false);
  return again.has_value() ? again : out;
}

Status ChatTemplate::Impl::probe() {
  const Json none;
  const ChatMessage user{"user", "probe_question"};
  const auto shows = [&](const std::vector<ChatMessage>& messages, const Json& tools, std::string_view part) {
    return holds(run(messages, tools, true), part);
  };
  Result<MarkedText> alone = run(std::vector{user}, none, true);
  if (!holds(alone, user.content)) {
    abilities.content_parts = true;
    const Result<MarkedText> parts = run(std::vector{user}, none, true);
    if (!holds(parts, user.content)) {
      return Error{ErrorCode::kUnavailable,
                   fmt::format("the model's chat template cannot be used: {}",
                               alone.has_value() ? "it does not show what the user says" : alone.error().message),
                   "use a plain prompt (prompt and completion), or another model"};
    }
  }
  abilities.system = shows({{"system", "probe_system"}, user}, none, "probe_system");
  const Json tools = probe_tools();
  abilities.tools = shows({user}, tools, "probe_tool_name");
  const Json& offered = abilities.tools ? tools : none;
  const std::vector<ChatMessage> called{user, probe_call()};
  const ChatMessage answer{"tool", "probe_answer", nullptr, kProbeId, "probe_call_name"};
  // Some templates show a call only when its answer follows.
  const std::vector<ChatMessage> answered{user, probe_call(), answer};
  const auto rendered = [&] {
    const Result<MarkedText> text = run(answered, offered, true);
    return text.has_value() ? text->bytes : std::string();
  };
  std::string with_object = rendered();
  abilities.argument_text = true;
  const std::string with_text = rendered();
  // An object shown in Python's spelling ('probe_key') was meant to be a text.
  abilities.argument_text =
      with_text.find("{\"probe_key\"") != std::string::npos &&
      (with_object.find("probe_key") == std::string::npos || with_object.find("'probe_key'") != std::string::npos);
  const std::string& best = abilities.argument_text ? with_text : with_object;
  abilities.tool_calls =
      best.find("probe_call_name") != std::string::npos && best.find("probe_value") != std::string::npos;
  abilities.tool_answers = best.find("probe_answer") != std::string::npos;
  if (!abilities.tool_calls) abilities.tool_calls = shows(called, offered, "probe_value");
  return {};
}

const char* ChatTemplate::chatml() {
  return "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' "
         "+ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
}

Result<std::shared_ptr<const ChatTemplate::Impl>> ChatTemplate::make_one(const std::string& source,
                                                                         const Tokenizer& tokenizer,
                                                                         const ChatTemplateOptions& options) {
  if (source.empty()) {
    return Error{ErrorCode::kInvalidArgument, "the model has no chat template",
                 "use a plain prompt, or a model that was trained to chat"};
  }
  auto parsed = JinjaTemplate::parse(source);
  if (!parsed) {
    return Error{ErrorCode::kUnavailable,
                 fmt::format("the model's chat template cannot be read: {}", parsed.error().message),
                 "use a plain prompt (prompt and completion), or another model"};
  }
  auto impl = std::make_shared<Impl>(Impl{.jinja = std::move(*parsed)});
  const auto spelling = [&](const char* name, std::int32_t id) {
    if (id >= 0) impl->special[name] = tokenizer.decode(std::span(&id, 1), true);
  };
  spelling("bos_token", tokenizer.bos());
  spelling("eos_token", tokenizer.eos());
  spelling("unk_token", tokenizer.unk());
  spelling("pad_token", tokenizer.pad());
  impl->variables = options.variables;
  impl->abilities.thoughts = source.find("</think>") != std::string::npos;
  impl->now = options.now.value_or(std::time(nullptr));
  TAILOR_CHECK(impl->probe());
  return std::shared_ptr<const Impl>(std::move(impl));
}

Result<ChatTemplate> ChatTemplate::make(const std::string& source, const Tokenizer& tokenizer,
                                        const ChatTemplateOptions& options) {
  TAILOR_TRY(const std::shared_ptr<const Impl> plain, make_one(source, tokenizer, options));
  std::shared_ptr<const Impl> with_tools;
  if (!options.tool_use.empty()) {
    TAILOR_TRY(with_tools, make_one(options.tool_use, tokenizer, options));
  }
  for (const auto& [name, value] : options.variables.items()) {
    static constexpr std::string_view kOurs[] = {"messages", "tools", "documents", "add_generation_prompt"};
    if (std::find(std::begin(kOurs), std::end(kOurs), name) != std::end(kOurs)) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("template variable {} comes from the conversation and cannot be set", name),
                   "leave it out"};
    }
    if (plain->special.contains(name) || plain->jinja.mentions(name)) continue;
    if (with_tools != nullptr && with_tools->jinja.mentions(name)) continue;
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("the model's chat template reads no variable {}: setting it changes nothing", name),
                 "leave it out, or look at the template for the name it reads"};
  }
  return ChatTemplate(plain, std::move(with_tools));
}

const ChatAbilities& ChatTemplate::abilities(bool tools_offered) const {
  return (tools_offered && with_tools_ != nullptr ? with_tools_ : impl_)->abilities;
}

Result<MarkedText> ChatTemplate::render(std::span<const ChatMessage> messages, const Json& tools,
                                        bool answer_follows) const {
  const Impl& impl = !tools.empty() && with_tools_ != nullptr ? *with_tools_ : *impl_;
  const ChatAbilities& can = impl.abilities;
  const auto lacks = [](std::string_view what) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("the model's chat template has no place for {}", what),
                 "take a model that was trained to call tools, or write the calls into the texts"};
  };
  if (!tools.empty() && !can.tools) return lacks("tools");
  for (const ChatMessage& message : messages) {
    if (has_calls(message) && !can.tool_calls) return lacks("calls of tools");
    if (message.role == "tool" && !can.tool_answers) return lacks("a tool's answers");
  }
  const auto run = [&]() -> Result<MarkedText> {
    const bool merges =
        !can.system && messages.size() > 1 && messages[0].role == "system" && messages[1].role == "user";
    if (!merges) return impl.run(messages, tools, answer_follows);
    std::vector<ChatMessage> merged(messages.begin() + 1, messages.end());
    merged[0].content = messages[0].content + "\n\n" + merged[0].content;
    return impl.run(merged, tools, answer_follows);
  };
  Result<MarkedText> out = run();
  if (out.has_value()) return out;
  return Error{out.error().code,
               fmt::format("the model's chat template refuses the conversation: {}", out.error().message),
               "change the conversation as it says, or take another model"};
}

}  // namespace tailor
