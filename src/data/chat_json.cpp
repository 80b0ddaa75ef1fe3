#include "data/chat_json.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "core/json_flaw.h"
#include "data/chat_collector.h"
#include "data/chat_rules.h"
#include "data/chat_tools.h"
#include "text/unicode.h"

namespace tailor {
namespace {

namespace dom = simdjson::dom;
using Type = dom::element_type;

constexpr std::size_t kMaxDepth = 64;
constexpr std::size_t kShownCodePoints = 160;
constexpr std::string_view kSpace = " \t\r\n";
constexpr std::string_view kBedrockVersion = "bedrock-conversation-2024";

Error wrong(std::string what, std::string hint = "") {
  return {ErrorCode::kInvalidArgument, std::move(what), std::move(hint)};
}

ChatFieldKind kind_of(const dom::element& value) {
  switch (value.type()) {
    case Type::ARRAY:
      return ChatFieldKind::kList;
    case Type::OBJECT:
      return ChatFieldKind::kObject;
    case Type::STRING:
      return ChatFieldKind::kText;
    case Type::BOOL:
      return ChatFieldKind::kBool;
    default:
      return ChatFieldKind::kNumber;
  }
}

/// The fields of one object that are not null. What is not taken is unused.
class Fields {
 public:
  static Result<Fields> of(const dom::element& value, std::string_view what) {
    if (!value.is_object()) {
      return wrong(fmt::format("expected {} to be an object, saw {}", what,
                               value.is_null() ? "null" : to_string(kind_of(value))));
    }
    Fields fields;
    std::vector<std::string_view> names;
    for (const auto [key, field] : dom::object(value)) {
      names.push_back(key);
      if (field.is_null()) continue;
      fields.kinds_.push_back({key, kind_of(field)});
      fields.values_.push_back(field);
    }
    fields.taken_.resize(fields.values_.size());
    std::sort(names.begin(), names.end());
    const auto twice = std::adjacent_find(names.begin(), names.end());
    if (twice != names.end())
      return wrong(fmt::format("the key '{}' is there twice", shorten(*twice, 40)), "keep one of the two");
    return fields;
  }

  std::span<const ChatField> kinds() const { return kinds_; }

  std::optional<dom::element> take(std::string_view name) {
    for (std::size_t i = 0; i < kinds_.size(); ++i) {
      if (kinds_[i].name != name) continue;
      taken_[i] = true;
      return values_[i];
    }
    return std::nullopt;
  }
  bool has(std::string_view name) const {
    return std::any_of(kinds_.begin(), kinds_.end(), [&](const ChatField& field) { return field.name == name; });
  }

  template <typename Visit>
  void each_unused(Visit visit) const {
    for (std::size_t i = 0; i < kinds_.size(); ++i) {
      if (!taken_[i]) visit(kinds_[i].name);
    }
  }

 private:
  std::vector<ChatField> kinds_;
  std::vector<dom::element> values_;
  std::vector<bool> taken_;
};

Error wrong_type(std::string_view what, std::string_view expected, const dom::element& seen) {
  return wrong(
      fmt::format("expected {} to be {}, saw {}", what, expected, seen.is_null() ? "null" : to_string(kind_of(seen))));
}

Result<std::string_view> as_text(const dom::element& value, std::string_view what) {
  std::string_view text;
  if (value.get(text) != simdjson::SUCCESS) return wrong_type(what, "a text", value);
  return text;
}
Result<dom::array> as_list(const dom::element& value, std::string_view what) {
  dom::array list;
  if (value.get(list) != simdjson::SUCCESS) return wrong_type(what, "a list", value);
  return list;
}

/// Text of a required key, or of one that may be absent ("").
Result<std::string_view> text_at(Fields& fields, std::string_view name) {
  const auto value = fields.take(name);
  if (!value) return missing_key(name, fields.kinds());
  return as_text(*value, fmt::format("'{}'", name));
}
Result<std::string_view> optional_text_at(Fields& fields, std::string_view name) {
  if (!fields.has(name)) return std::string_view();
  return text_at(fields, name);
}

bool is_empty(const dom::element& value) {
  if (value.is_array()) return dom::array(value).size() == 0;
  if (value.is_object()) return dom::object(value).size() == 0;
  std::string_view text;
  return value.get(text) == simdjson::SUCCESS && (is_blank(text) || text == "[]");
}

Status refuse(Fields& fields, std::string_view name, std::string_view why, std::string_view hint) {
  const auto value = fields.take(name);
  if (!value || is_empty(*value)) return {};
  return wrong(fmt::format("'{}': {}", name, why), std::string(hint));
}

constexpr std::string_view kNoTools = "this shape has no calls of tools";
constexpr std::string_view kToolHint =
    "a call stands in \"tool_calls\" of the assistant's message, its answer in a message of the role \"tool\"";

Result<Json> as_json(const dom::element& value, std::string_view what, std::size_t max_bytes) {
  const std::string text = simdjson::minify(value);
  if (text.size() > max_bytes) {
    return wrong(fmt::format("{} holds {} bytes; the limit is {}", what, text.size(), max_bytes),
                 "raise --max-text-bytes if it is meant");
  }
  return parse_json(text, what);
}

/// Reads the records of one text into a collector.
class Reader {
 public:
  Reader(ChatCollector& collector) : collector_(collector), max_bytes_(collector.options().max_text_bytes) {
    setup_error_ = parser_.allocate(std::size_t{1} << 16, kMaxDepth);
  }

  Status read_lines(std::string_view text) {
    std::uint64_t line = 0;
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = std::min(text.find('\n', begin), text.size());
      const std::string_view record = text.substr(begin, end - begin);
      begin = end + 1;
      ++line;
      if (record.find_first_not_of(kSpace) == std::string_view::npos) continue;
      dom::element value;
      if (const auto code = parse(record, value); code != simdjson::SUCCESS) return flaw_in_line(line, record, code);
      TAILOR_CHECK(take_record(line, value));
    }
    return {};
  }

  Status read_array(std::string_view text) {
    dom::element root;
    if (const auto code = parse(text, root); code != simdjson::SUCCESS) return flaw_in_array(text, code);
    TAILOR_TRY(const dom::array elements, as_list(root, collector_.file()));
    std::uint64_t number = 0;
    for (const dom::element element : elements) TAILOR_CHECK(take_record(++number, element));
    return {};
  }

  Result<Fields> fields_of(std::string_view record) {
    dom::element value;
    if (parse(record, value) != simdjson::SUCCESS) return wrong("not valid JSON");
    return Fields::of(value, "the row");
  }

 private:
  /// simdjson does not tell where a text is broken; find_json_flaw() does, and only then is it asked.
  simdjson::error_code parse(std::string_view json, dom::element& value) {
    if (setup_error_ != simdjson::SUCCESS) return setup_error_;
    return parser_.parse(json.data(), json.size()).get(value);
  }

  static Error broken(const std::string& where, const std::optional<JsonFlaw>& flaw, simdjson::error_code code) {
    if (code == simdjson::DEPTH_ERROR) {
      return {ErrorCode::kCorruptData, fmt::format("{}: JSON is nested deeper than {}", where, kMaxDepth - 1),
              "chat data is flat; the file may be of another kind"};
    }
    if (code == simdjson::MEMALLOC)
      return {ErrorCode::kOutOfMemory, fmt::format("{}: too little memory to read it", where), "split the file"};
    if (code == simdjson::CAPACITY) {
      return {ErrorCode::kInvalidArgument, fmt::format("{}: more than 4 GiB in one JSON text", where),
              "write one object a line (JSONL)"};
    }
    return {ErrorCode::kCorruptData,
            fmt::format("{}: not valid JSON: {}", where,
                        flaw ? shorten(flaw->reason, kShownCodePoints) : simdjson::error_message(code)),
            ""};
  }

  Error flaw_in_line(std::uint64_t line, std::string_view record, simdjson::error_code code) const {
    const auto flaw = find_json_flaw(record);
    Error error = broken(flaw ? fmt::format("{}:{}, column {}", collector_.file(), line, flaw->offset + 1)
                              : fmt::format("{}:{}", collector_.file(), line),
                         flaw, code);
    if (error.hint.empty()) {
      error.hint = flaw && flaw->offset >= record.size()
                       ? "each line holds one whole object; if the objects span lines, put them into one list: [ ... ]"
                       : "each line holds one whole object, without a comma after it";
    }
    return error;
  }
  Error flaw_in_array(std::string_view text, simdjson::error_code code) const {
    const auto flaw = find_json_flaw(text);
    if (!flaw) return broken(collector_.file(), flaw, code);
    const std::string_view before = text.substr(0, flaw->offset);
    const auto line = std::count(before.begin(), before.end(), '\n') + 1;
    const std::size_t column = flaw->offset - (before.rfind('\n') + 1) + 1;  // npos + 1 is 0
    Error error = broken(fmt::format("{}:{}, column {}", collector_.file(), line, column), flaw, code);
    if (error.hint.empty()) error.hint = "the file begins with [, so it is read as one list of objects: [{...}, {...}]";
    return error;
  }

  Status take_record(std::uint64_t number, const dom::element& value) {
    auto fields = Fields::of(value, "the row");
    if (!fields) {
      Error error = collector_.at(number, fields.error());
      if (error.hint.empty()) error.hint = "each row is an object such as {\"messages\": [...]}";
      return error;
    }
    TAILOR_TRY(const ChatShape shape, collector_.shape_of(number, fields->kinds()));
    number_ = number;
    shape_ = shape;
    ExampleForm form = ExampleForm::kChat;
    auto tools = tools_of(*fields);
    if (!tools) return collector_.at(number, tools.error());
    auto turns = turns_of(*fields, form);
    if (!turns) return collector_.at(number, turns.error());
    if (form != ExampleForm::kChat && !tools->is_null())
      return collector_.at(number, wrong("there are tools beside texts", "tools go with lists of messages"));
    fields->each_unused([&](std::string_view key) { collector_.note_unused(number, key); });
    return collector_.add(number, form, std::move(*turns), std::move(*tools));
  }

  Result<Json> tools_of(Fields& fields) {
    const bool takes =
        shape_ == ChatShape::kMessages || shape_ == ChatShape::kShareGpt || shape_ == ChatShape::kPromptCompletion;
    Json tools;
    for (const std::string_view name : {"tools", "functions"}) {
      if (!takes) {
        TAILOR_CHECK(refuse(fields, name, kNoTools, kToolHint));
        continue;
      }
      const auto value = fields.take(name);
      if (!value || is_empty(*value)) continue;
      if (!tools.is_null()) return wrong("both 'tools' and 'functions' are there", "keep one of the two");
      TAILOR_TRY(const Json given, as_json(*value, fmt::format("'{}'", name), max_bytes_));
      TAILOR_TRY(tools, read_tools(given, name));
    }
    return tools;
  }

  Result<std::vector<ChatTurn>> turns_of(Fields& fields, ExampleForm& form) {
    for (const std::string_view name : {"images", "videos", "audios"})
      TAILOR_CHECK(refuse(fields, name, "only text can be learnt", "leave such examples out"));
    std::vector<ChatTurn> turns;
    switch (shape_) {
      case ChatShape::kBedrock: {
        TAILOR_TRY(const std::string_view version, text_at(fields, "schemaVersion"));
        if (version != kBedrockVersion) {
          return wrong(
              fmt::format("expected 'schemaVersion' to be '{}', saw '{}'", kBedrockVersion, shorten(version, 40)));
        }
        [[fallthrough]];
      }
      case ChatShape::kMessages:
      case ChatShape::kShareGpt:
        TAILOR_CHECK(append_system(fields, turns));
        TAILOR_CHECK(
            append_messages(fields, shape_ == ChatShape::kShareGpt ? "conversations" : "messages", true, turns));
        return turns;
      case ChatShape::kAlpaca:
        return instruction_turns_of(fields);
      case ChatShape::kPromptCompletion:
        return completion_turns_of(fields, form);
      case ChatShape::kText: {
        form = ExampleForm::kText;
        TAILOR_TRY(const std::string_view text, text_at(fields, "text"));
        TAILOR_TRY(std::string copy, checked_text(text, "'text'", max_bytes_));
        turns.push_back({"text", std::move(copy), true});
        return turns;
      }
    }
    return turns;
  }

  Result<std::vector<ChatTurn>> instruction_turns_of(Fields& fields) {
    InstructionTexts texts;
    TAILOR_TRY(texts.instruction, text_at(fields, "instruction"));
    TAILOR_TRY(texts.output, text_at(fields, "output"));
    TAILOR_TRY(texts.input, optional_text_at(fields, "input"));
    TAILOR_TRY(texts.system, optional_text_at(fields, "system"));
    if (const auto history = fields.take("history")) {
      const std::size_t others = is_blank(texts.system) ? 2 : 3;
      TAILOR_TRY(const dom::array pairs, as_list(*history, "'history'"));
      for (const dom::element entry : pairs) {
        const std::string what = fmt::format("pair {} of 'history'", texts.history.size() + 1);
        TAILOR_TRY(const dom::array pair, as_list(entry, what));
        if (pair.size() != 2)
          return wrong(fmt::format("expected {} to hold two texts, user and assistant; saw {}", what, pair.size()));
        TAILOR_CHECK(check_turns(2 * (texts.history.size() + 1) + others));
        TAILOR_TRY(const std::string_view user, as_text(*pair.begin(), what));
        TAILOR_TRY(const std::string_view assistant, as_text(*++pair.begin(), what));
        texts.history.emplace_back(user, assistant);
      }
    }
    return instruction_turns(texts, max_bytes_);
  }

  Result<std::vector<ChatTurn>> completion_turns_of(Fields& fields, ExampleForm& form) {
    const auto prompt = fields.take("prompt");
    const auto completion = fields.take("completion");
    if (!completion) return missing_key("completion", fields.kinds());
    if (prompt->is_array() && completion->is_array()) {
      std::vector<ChatTurn> turns;
      TAILOR_CHECK(append_messages(fields, "prompt", false, turns));
      TAILOR_CHECK(append_messages(fields, "completion", true, turns));
      return turns;
    }
    form = ExampleForm::kCompletion;
    if (prompt->is_array() || completion->is_array()) {
      return wrong(fmt::format("'prompt' is {} and 'completion' is {}; expected two texts or two lists of messages",
                               to_string(kind_of(*prompt)), to_string(kind_of(*completion))));
    }
    TAILOR_TRY(const std::string_view before, as_text(*prompt, "'prompt'"));
    TAILOR_TRY(const std::string_view after, as_text(*completion, "'completion'"));
    return completion_turns(before, after, max_bytes_);
  }

  Status check_turns(std::size_t count) const {
    const std::size_t most = collector_.options().max_turns;
    if (count <= most) return {};
    return wrong(fmt::format("more than {} turns", most), "split the conversation");
  }

  Status append_system(Fields& fields, std::vector<ChatTurn>& turns) {
    const auto system = fields.take("system");
    if (!system) return {};
    TAILOR_TRY(std::string text, content_of(*system, "'system'", "\n\n"));
    if (!is_blank(text)) turns.push_back({"system", std::move(text), false});
    return {};
  }

  Status append_messages(Fields& fields, std::string_view list_name, bool learn, std::vector<ChatTurn>& turns) {
    const std::string list_what = fmt::format("'{}'", list_name);
    TAILOR_TRY(const dom::array messages, as_list(*fields.take(list_name), list_what));
    if (messages.size() == 0) return wrong(fmt::format("{} is empty", list_what), "take the row out");
    std::size_t count = 0;
    for (const dom::element message : messages) {
      ++count;
      TAILOR_CHECK(check_turns(turns.size() + 1));
      const std::string what = fmt::format("message {} of {}", count, list_what);
      TAILOR_TRY(Fields parts, Fields::of(message, what));
      auto turn = turn_of(parts, learn);
      if (!turn) return Error{turn.error().code, what + ": " + turn.error().message, turn.error().hint};
      turns.push_back(std::move(*turn));
      parts.each_unused([&](std::string_view key) {
        collector_.note_unused(number_, fmt::format("{}[].{}", list_name, shorten(key, 40)));
      });
    }
    return {};
  }

  /// The calls of an assistant's message; null: none.
  Result<Json> calls_of(Fields& message) {
    Json calls;
    for (const std::string_view name : {"tool_calls", "function_call"}) {
      const auto value = message.take(name);
      if (!value || is_empty(*value)) continue;
      if (!calls.is_null()) return wrong("both 'tool_calls' and 'function_call' are there", "keep one of the two");
      TAILOR_TRY(const Json given, as_json(*value, fmt::format("'{}'", name), max_bytes_));
      TAILOR_TRY(calls, name == "tool_calls" ? read_tool_calls(given) : read_function_call(given, name));
    }
    return calls;
  }

  Result<std::string> tool_text(Fields& message, std::string_view name) {
    TAILOR_TRY(const std::string_view text, optional_text_at(message, name));
    std::string copy;
    TAILOR_CHECK(append_text(copy, text, fmt::format("'{}'", name), max_bytes_));
    return copy;
  }

  Result<ChatTurn> turn_of(Fields& message, bool learn) {
    const bool from = shape_ == ChatShape::kShareGpt && !message.has("role");
    const std::string_view content_name = from ? "value" : "content";
    ChatTurn turn;
    TAILOR_TRY(const std::string_view role, text_at(message, from ? "from" : "role"));
    TAILOR_TRY(turn.role, known_role(role, shape_));
    TAILOR_TRY(turn.tool_calls, calls_of(message));
    if (!turn.tool_calls.is_null() && turn.role != "assistant")
      return wrong(fmt::format("role '{}' calls tools", shorten(role, 40)), "only the assistant does");
    if (turn.role == "tool") {
      TAILOR_TRY(turn.tool_call_id, tool_text(message, "tool_call_id"));
      TAILOR_TRY(turn.name, tool_text(message, "name"));
    } else {
      TAILOR_CHECK(refuse(message, "tool_call_id", fmt::format("it stands on role '{}'", shorten(role, 40)),
                          "it belongs to messages of the role 'tool'"));
    }
    const auto content = message.take(content_name);
    if (!content && turn.tool_calls.is_null()) return missing_key(content_name, message.kinds());
    if (content) {
      TAILOR_TRY(turn.content, content_of(*content, fmt::format("'{}'", content_name), ""));
    }
    if (role == "function_call") {  // ShareGPT: the call is the text
      TAILOR_TRY(turn.tool_calls, read_function_call(Json(turn.content), content_name));
      turn.content.clear();
    }
    if (is_blank(turn.content) && !turn.tool_calls.is_null()) turn.content.clear();
    const bool may_be_blank = turn.role == "system" || turn.role == "tool" || !turn.tool_calls.is_null();
    if (!may_be_blank && is_blank(turn.content)) {
      return wrong(fmt::format("'{}' of role '{}' is empty", content_name, shorten(role, 40)),
                   "give it a text, or take the message out");
    }
    const bool assistant = turn.role == "assistant";
    turn.learn = learn && assistant;
    if (const auto weight = message.take("weight")) {
      double value = -1;
      if ((!weight->is_number() || weight->get(value) != simdjson::SUCCESS) || (value != 0 && value != 1)) {
        return wrong(fmt::format("expected 'weight' to be 0 or 1, saw {}", shorten(simdjson::minify(*weight), 40)),
                     "0 leaves the turn out of what is learnt, 1 learns it");
      }
      if (value == 1 && !assistant) {
        return wrong(
            fmt::format("'weight' is 1 on role '{}'; only the assistant's turns are learnt", shorten(role, 40)),
            "take the weight out");
      }
      turn.learn = value == 1;
    }
    return turn;
  }

  /// A text, or a list of parts that are texts.
  Result<std::string> content_of(const dom::element& value, std::string_view what, std::string_view joint) {
    std::string text;
    if (!value.is_array()) {
      std::string_view whole;
      if (value.get(whole) != simdjson::SUCCESS) return wrong_type(what, "a text or a list of texts", value);
      TAILOR_CHECK(append_text(text, whole, what, max_bytes_));
      return text;
    }
    std::size_t count = 0;
    for (const dom::element element : dom::array(value)) {
      const std::string part_what = fmt::format("part {} of {}", ++count, what);
      TAILOR_TRY(Fields part, Fields::of(element, part_what));
      if (part.has("type")) {
        TAILOR_TRY(const std::string_view type, text_at(part, "type"));
        if (type != "text") {
          return wrong(
              fmt::format("{} is of type '{}'; only parts of type 'text' can be learnt", part_what, shorten(type, 40)),
              "leave such examples out");
        }
      }
      for (const std::string_view name : {"toolUse", "toolResult"})
        TAILOR_CHECK(refuse(part, name, kNoTools, kToolHint));
      const auto content = part.take("text");
      if (!content) {
        const Error error = missing_key("text", part.kinds());
        return Error{error.code, fmt::format("{}: {}", part_what, error.message), error.hint};
      }
      TAILOR_TRY(const std::string_view piece, as_text(*content, fmt::format("'text' of {}", part_what)));
      if (count > 1) TAILOR_CHECK(append_text(text, joint, what, max_bytes_));
      TAILOR_CHECK(append_text(text, piece, what, max_bytes_));
      part.each_unused([&](std::string_view key) {
        collector_.note_unused(number_, fmt::format("content[].{}", shorten(key, 40)));
      });
    }
    return text;
  }

  ChatCollector& collector_;
  std::size_t max_bytes_;
  dom::parser parser_;
  simdjson::error_code setup_error_ = simdjson::SUCCESS;
  std::uint64_t number_ = 0;                // of the record at hand
  ChatShape shape_ = ChatShape::kMessages;  // of the record at hand
};

bool is_array(std::string_view text) {
  const std::size_t first = text.find_first_not_of(kSpace);
  return first != std::string_view::npos && text[first] == '[';
}

}  // namespace

Result<ChatData> parse_chat_json(std::string_view text, std::string file, const ChatReadOptions& options) {
  if (text.find_first_not_of(kSpace) == std::string_view::npos) {
    return Error{ErrorCode::kInvalidArgument, file + " is empty",
                 "expected one JSON object a line, such as {\"messages\": [...]}"};
  }
  const bool array = is_array(text);
  ChatCollector collector(std::move(file), array ? ChatPlaces::kElements : ChatPlaces::kLines, options);
  Reader reader(collector);
  TAILOR_CHECK(array ? reader.read_array(text) : reader.read_lines(text));
  return collector.finish();
}

std::optional<bool> first_object_is_chat(std::string_view text) {
  std::size_t begin = text.find_first_not_of(kSpace);
  if (begin != std::string_view::npos && text[begin] == '[') begin = text.find_first_not_of(kSpace, begin + 1);
  if (begin == std::string_view::npos) return std::nullopt;
  if (text[begin] != '{') return false;
  const std::string_view object = json_object_at_front(text.substr(begin));
  if (object.empty()) return std::nullopt;
  ChatCollector unused("", ChatPlaces::kLines, {});
  Reader reader(unused);  // the fields point into it
  const auto fields = reader.fields_of(object);
  return fields && (is_preference_data(fields->kinds()) || recognise_shape(fields->kinds()).has_value());
}

}  // namespace tailor
