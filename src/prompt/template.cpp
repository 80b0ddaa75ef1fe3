#include "prompt/template.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "infer/label_trie.h"

namespace tailor {
namespace {

constexpr std::string_view kEllipsis = " … ";

struct EndName {
  LabelEnd end;
  std::string_view name;
};
constexpr EndName kEndNames[] = {{LabelEnd::kAuto, "auto"},
                                 {LabelEnd::kNone, "none"},
                                 {LabelEnd::kNewline, "newline"},
                                 {LabelEnd::kEndOfTurn, "end_of_turn"}};

/// Appends one line without control characters: a message cannot open a line of the prompt's own.
void append_one_line(std::string_view text, std::string& out) {
  const std::size_t begin = out.size();
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool blank = byte <= 0x20 || byte == 0x7F;
    if (blank && (out.size() == begin || out.back() == ' ')) continue;
    out += blank ? ' ' : c;
  }
  while (out.size() > begin && out.back() == ' ') out.pop_back();
}

std::string one_line(std::string_view text) {
  std::string out;
  append_one_line(text, out);
  return out;
}

bool inside_character(std::string_view text, std::size_t at) {
  return at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0u) == 0x80u;
}

/// The first and last `bytes / 2` bytes, whole characters.
std::string without_middle(std::string_view text, std::size_t bytes) {
  std::size_t head = bytes / 2, tail = text.size() - bytes / 2;
  while (head > 0 && inside_character(text, head)) --head;
  while (tail < text.size() && inside_character(text, tail)) ++tail;
  return fmt::format("{}{}{}", text.substr(0, head), kEllipsis, text.substr(tail));
}

}  // namespace

std::vector<std::string> readable_labels(std::span<const std::string> labels) {
  std::vector<std::string> readable;
  std::set<std::string> seen;
  for (const std::string& label : labels) {
    std::string text = label;
    std::replace(text.begin(), text.end(), '_', ' ');
    text = one_line(text);
    if (text.empty() || !seen.insert(text).second) return {labels.begin(), labels.end()};
    readable.push_back(std::move(text));
  }
  return readable;
}

Json PromptTemplate::to_json() const {
  Json json;
  json["chat"] = chat;
  json["instruction"] = instruction;
  json["list_labels"] = list_labels;
  json["message_name"] = message_name;
  json["label_name"] = label_name;
  for (const EndName& e : kEndNames) {
    if (e.end == end) json["label_end"] = e.name;
  }
  json["max_message_tokens"] = max_message_tokens;
  json["max_demonstration_tokens"] = max_demonstration_tokens;
  return json;
}

Result<PromptTemplate> PromptTemplate::from_json(const Json& json) {
  PromptTemplate t;
  try {
    t.chat = json.at("chat").get<bool>();
    t.instruction = json.at("instruction").get<std::string>();
    t.list_labels = json.at("list_labels").get<bool>();
    t.message_name = json.at("message_name").get<std::string>();
    t.label_name = json.at("label_name").get<std::string>();
    t.max_message_tokens = json.at("max_message_tokens").get<int>();
    t.max_demonstration_tokens = json.at("max_demonstration_tokens").get<int>();
    const auto end = json.at("label_end").get<std::string>();
    const auto* known =
        std::find_if(std::begin(kEndNames), std::end(kEndNames), [&](const EndName& e) { return e.name == end; });
    if (known == std::end(kEndNames))
      return Error{ErrorCode::kCorruptData,
                   fmt::format("the prompt's label_end is '{}'; expected auto, none, newline or end_of_turn", end), ""};
    t.end = known->end;
  } catch (const nlohmann::json::exception& e) {
    return Error{ErrorCode::kCorruptData, fmt::format("the prompt's settings cannot be read: {}", e.what()),
                 "the package is damaged; make it again"};
  }
  return t;
}

Result<PromptBuilder> PromptBuilder::make(const Tokenizer& tokenizer, const std::string& chat_template, int max_context,
                                          PromptTemplate settings, std::vector<std::string> label_texts) {
  if (settings.max_message_tokens < 1 || settings.max_demonstration_tokens < 1) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("a prompt's limits are {} tokens for a message and {} for a demonstration; expected 1 or more",
                    settings.max_message_tokens, settings.max_demonstration_tokens),
        ""};
  }
  settings.instruction = one_line(settings.instruction);
  PromptBuilder builder(tokenizer, std::move(settings));
  for (std::size_t i = 0; i < label_texts.size(); ++i) {
    label_texts[i] = one_line(label_texts[i]);
    if (label_texts[i].empty()) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("label number {} is blank", i),
                   "rename the label: it must hold text that the model can read"};
    }
  }
  builder.label_texts_ = std::move(label_texts);
  builder.max_context_ = max_context;
  if (builder.settings_.chat) {  // known to work from here on
    TAILOR_TRY(builder.chat_template_, ChatTemplate::make(chat_template, tokenizer));
    const std::vector<ChatMessage> trial{{"system", "x"}, {"user", "x"}, {"assistant", "x"}, {"user", "x"}};
    TAILOR_TRY(const MarkedText shown, builder.chat_template_->render(trial, nullptr, true));
  }
  const bool chat = builder.settings_.chat;
  const LabelEnd wanted = builder.settings_.end;
  builder.end_ = wanted == LabelEnd::kAuto ? LabelEnd::kNone : wanted;
  if (!chat) {
    const std::string opening = builder.opening();
    builder.before_message_ =
        fmt::format("{}{}{}: ", opening, opening.empty() ? "" : "\n", builder.settings_.message_name);
    builder.after_message_ = fmt::format("\n{}:", builder.settings_.label_name);
  }
  Status found = builder.find_labels();
  if (!found.has_value() && wanted == LabelEnd::kAuto) {
    builder.end_ = chat ? LabelEnd::kEndOfTurn : LabelEnd::kNewline;
    found = builder.find_labels();
  }
  if (!found.has_value()) return found.error();
  return builder;
}

std::string PromptBuilder::opening() const {
  std::string opening = settings_.instruction;
  if (settings_.list_labels) {
    opening +=
        fmt::format("{}{}s: {}", opening.empty() ? "" : "\n", settings_.label_name, fmt::join(label_texts_, "; "));
  }
  return opening;
}

PromptText PromptBuilder::render(std::string_view message, std::span<const Demonstration> demonstrations) const {
  const auto label_of = [&](const Demonstration& d) -> const std::string& {
    return label_texts_[static_cast<std::size_t>(d.label)];
  };
  const std::string opening = this->opening();
  if (!settings_.chat) {
    std::string text = opening.empty() ? "" : opening + "\n";
    for (const Demonstration& d : demonstrations) {
      text += fmt::format("{}: {}\n{}: {}\n", settings_.message_name,
                          shortened(d.text, settings_.max_demonstration_tokens), settings_.label_name, label_of(d));
    }
    text += fmt::format("{}: {}{}", settings_.message_name, message, after_message_);
    return {{std::move(text), false}};
  }
  std::vector<ChatMessage> messages;
  if (!opening.empty()) messages.push_back({"system", opening});
  for (const Demonstration& d : demonstrations) {
    messages.push_back(
        {"user", fmt::format("{}: {}", settings_.message_name, shortened(d.text, settings_.max_demonstration_tokens))});
    messages.push_back({"assistant", label_of(d)});
  }
  messages.push_back({"user", fmt::format("{}: {}", settings_.message_name, message)});
  return pieces_of(chat_template_->render(messages, nullptr, true).value());  // make() has tried the template
}

std::string PromptBuilder::prompt_text(std::string_view message, std::span<const Demonstration> demonstrations) const {
  return joined(render(shortened(message, settings_.max_message_tokens), demonstrations));
}

Status PromptBuilder::find_labels() {
  const PromptText scaffold = render("I have a question", {});
  const TokenList prompt = encoder_.encode(scaffold);
  if (end_ == LabelEnd::kEndOfTurn && encoder_.tokenizer().eos() < 0) {
    return Error{ErrorCode::kInvalidArgument, "the model has no end-of-turn token", "let labels end with a newline"};
  }
  // Where the prompt's last tokens change when a label follows, they are scored as part of every label.
  std::size_t kept = prompt.size();
  std::vector<TokenList> whole;
  for (const std::string& label : label_texts_) {
    PromptText text = scaffold;
    text.push_back({(settings_.chat ? "" : " ") + label + (end_ == LabelEnd::kNewline ? "\n" : ""), false});
    whole.push_back(encoder_.encode(text));
    kept = std::min(kept, common_length(prompt, whole.back()));
  }
  if (kept == 0) return Error{ErrorCode::kInternal, "no token of the prompt stays the same when a label follows", ""};
  cue_tail_.assign(prompt.begin() + static_cast<std::ptrdiff_t>(kept), prompt.end());
  labels_.clear();
  longest_label_ = 0;
  for (const TokenList& tokens : whole) {
    TokenList label(tokens.begin() + static_cast<std::ptrdiff_t>(kept), tokens.end());
    if (end_ == LabelEnd::kEndOfTurn) label.push_back(encoder_.tokenizer().eos());
    longest_label_ = std::max(longest_label_, static_cast<int>(label.size()));
    labels_.push_back(std::move(label));
  }
  TAILOR_TRY(const LabelTrie trie, LabelTrie::build(labels_, label_texts_));
  return {};
}

std::string PromptBuilder::shortened(std::string_view text, int max_tokens) const {
  const auto limit = static_cast<std::size_t>(max_tokens);
  // Tokens are rarely shorter than a byte or longer than 64: bounds the work on a text of any length.
  std::string line = text.size() > limit * 256 ? one_line(without_middle(text, limit * 128)) : one_line(text);
  bool truncated = false;
  const Tokenizer& tokenizer = encoder_.tokenizer();
  (void)tokenizer.encode_truncated(line, limit, false, &truncated);
  if (!truncated) return line;
  std::size_t fits = 0, too_many = line.size();
  while (fits + 8 < too_many) {
    const std::size_t bytes = (fits + too_many) / 2;
    (void)tokenizer.encode_truncated(without_middle(line, bytes), limit, false, &truncated);
    (truncated ? too_many : fits) = bytes;
  }
  return without_middle(line, fits);
}

Result<TokenList> PromptBuilder::prompt(std::string_view message, std::span<const Demonstration> demonstrations) const {
  for (const Demonstration& d : demonstrations) {
    if (d.label < 0 || static_cast<std::size_t>(d.label) >= label_texts_.size()) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("a demonstration has label {}; there are {}", d.label, label_texts_.size()), ""};
    }
  }
  const int budget = max_context_ - longest_label_;
  int allowed = settings_.max_message_tokens;
  while (true) {
    TokenList tokens = encoder_.encode(render(shortened(message, allowed), demonstrations));
    const int excess = static_cast<int>(tokens.size()) - budget;
    if (excess <= 0) {
      if (tokens.size() <= cue_tail_.size() || !std::equal(cue_tail_.rbegin(), cue_tail_.rend(), tokens.rbegin())) {
        return Error{ErrorCode::kInternal, "the prompt's last tokens depend on the message", ""};
      }
      tokens.resize(tokens.size() - cue_tail_.size());
      return tokens;
    }
    if (!demonstrations.empty()) {
      demonstrations = demonstrations.subspan(1);
      continue;
    }
    // The message may have been shorter than allowed: what it really has is the starting point.
    const int has = static_cast<int>(
        encoder_.tokenizer()
            .encode_truncated(one_line(message.substr(0, 1u << 20)), static_cast<std::size_t>(allowed), false)
            .size());
    if (has <= 1 || has - excess < 1) {
      return Error{
          ErrorCode::kInvalidArgument,
          fmt::format("the prompt without a message needs {} tokens and the longest label {}; the model reads {}",
                      static_cast<int>(tokens.size()) - has, longest_label_, max_context_),
          "shorten the instruction, leave the list of labels out, or use a model with a longer context"};
    }
    allowed = has - excess;
  }
}

Status PromptBuilder::append_prompt(std::string_view message, std::string& scratch, TokenList& out) const {
  const std::size_t before = out.size();
  // A line of ASCII has at most a token for each byte and a few around it, so that nothing of this one is left out.
  const auto limit = static_cast<std::size_t>(settings_.max_message_tokens);
  const bool usual =
      !settings_.chat && message.size() + 8 <= limit &&
      std::all_of(message.begin(), message.end(), [](char c) { return static_cast<signed char>(c) >= 0; });
  if (usual) {
    scratch = before_message_;
    append_one_line(message, scratch);
    scratch += after_message_;
    const Tokenizer& tokenizer = encoder_.tokenizer();
    if (tokenizer.adds_bos()) out.push_back(tokenizer.bos());
    tokenizer.append(scratch, out);
    const std::size_t length = out.size() - before;
    if (length <= static_cast<std::size_t>(std::max(0, max_context_ - longest_label_)) && length > cue_tail_.size() &&
        std::equal(cue_tail_.rbegin(), cue_tail_.rend(), out.rbegin())) {
      out.resize(out.size() - cue_tail_.size());
      return {};
    }
    out.resize(before);
  }
  TAILOR_TRY(const TokenList tokens, prompt(message, {}));
  out.insert(out.end(), tokens.begin(), tokens.end());
  return {};
}

Result<TokenList> PromptBuilder::common_prefix(std::span<const Demonstration> fixed) const {
  TAILOR_TRY(const TokenList one, prompt("a", fixed));
  TAILOR_TRY(const TokenList other, prompt("7 Zx", fixed));
  return TokenList(one.begin(), one.begin() + static_cast<std::ptrdiff_t>(common_length(one, other)));
}

}  // namespace tailor
