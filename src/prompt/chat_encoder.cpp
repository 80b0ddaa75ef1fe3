#include "prompt/chat_encoder.h"

#include <algorithm>

namespace tailor {
namespace {

constexpr std::string_view kAssistant = "assistant";

/// Where answers begin in `text`: it goes on from these questions.
std::vector<std::size_t> cuts_of(const MarkedText& text, std::span<const std::optional<MarkedText>> questions) {
  std::vector<std::size_t> cuts;
  for (const auto& asked : questions) {
    if (asked && asked->size() > (cuts.empty() ? 0 : cuts.back()) && asked->size() < text.size() &&
        text.bytes.starts_with(asked->bytes))
      cuts.push_back(asked->size());
  }
  return cuts;
}

std::size_t common_bytes(std::string_view a, std::string_view b) {
  return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

void append(TokenList& to, const TokenList& tokens) {
  to.insert(to.end(), tokens.begin(), tokens.end());
}

}  // namespace

struct ChatEncoder::Answer {
  std::size_t begin = 0, end = 0;  // in the text that shows it
  bool ended = false;              // by a token
  bool goes_on = false;            // from the question as it is asked
};

Result<MarkedText> ChatEncoder::render(std::span<const ChatMessage> messages, const Json& tools,
                                       bool answer_follows) const {
  if (!chat_template_) {
    return Error{ErrorCode::kInvalidArgument, "the model has no chat template",
                 "use a plain prompt, or a model that was trained to chat"};
  }
  return chat_template_->render(messages, tools, answer_follows);
}

Result<std::vector<std::optional<MarkedText>>> ChatEncoder::questions(std::span<const ChatMessage> messages,
                                                                      const Json& tools) const {
  std::vector<std::optional<MarkedText>> out(messages.size());
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role != kAssistant) continue;
    TAILOR_TRY(out[i], render(messages.first(i), tools, true));
  }
  return out;
}

TokenList ChatEncoder::tokens_of(const MarkedText& text, std::span<const std::optional<MarkedText>> questions) const {
  TokenList tokens;
  std::size_t begin = 0;
  std::vector<std::size_t> cuts = cuts_of(text, questions);
  cuts.push_back(text.size());
  for (const std::size_t end : cuts) {
    append(tokens, encoder_.encode_marked(text.part(begin, end), tokens.empty()));
    begin = end;
  }
  return tokens;
}

Result<TokenList> ChatEncoder::prompt(std::span<const ChatMessage> messages, const Json& tools) const {
  TAILOR_TRY(const MarkedText asked, render(messages, tools, true));
  TAILOR_TRY(const auto before, questions(messages, tools));
  return tokens_of(asked, before);
}

ChatEncoder::Answer ChatEncoder::find_answer(const MarkedText& shown, const MarkedText& asked,
                                             const ChatMessage& message) const {
  Answer out;
  out.goes_on = shown.bytes.starts_with(asked.bytes);
  if (out.goes_on) {
    out.begin = asked.size();
  } else {
    // The template opens an answer in another way than it shows one. What both have in common is not learnt; of that no
    // half words, and no half of a control token.
    std::size_t common = common_bytes(shown.bytes, asked.bytes);
    if (common < shown.size() && !message.content.empty() && message.tool_calls.empty()) {
      while (common < shown.size() && !shown.is_foreign(common)) common = shown.end_of_run(common);
      out.begin = common;
    } else {
      const std::size_t line = shown.bytes.rfind('\n', common == 0 ? 0 : common - 1);
      out.begin = line == std::string::npos || line >= common ? 0 : line + 1;
      for (std::size_t at = encoder_.after_control(shown, out.begin, false); at <= common;
           at = encoder_.after_control(shown, out.begin, false))
        out.begin = at;
    }
  }
  const std::size_t end = encoder_.after_control(shown, out.begin, true);
  out.ended = end != std::string::npos;
  out.end = out.ended ? end : shown.size();
  while (!out.ended && out.end > out.begin && !shown.is_foreign(out.end - 1) &&
         (shown.bytes[out.end - 1] == ' ' || shown.bytes[out.end - 1] == '\n'))
    --out.end;
  return out;
}

/// The answer as far as the token that ends it; the model's end of text where the template has none.
TokenList ChatEncoder::answer_tokens(const MarkedText& shown, const Answer& answer) const {
  TokenList tokens = encoder_.encode_marked(shown.part(answer.begin, answer.end), false);
  if (!answer.ended && tokenizer().eos() >= 0) tokens.push_back(tokenizer().eos());
  return tokens;
}

Result<std::vector<TrainingRow>> ChatEncoder::rows(std::span<const ChatMessage> messages,
                                                   std::span<const std::uint8_t> learn, const Json& tools) const {
  std::size_t last = messages.size();
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (learn[i] != 0) last = i;
  }
  if (last == messages.size())
    return Error{ErrorCode::kInvalidArgument, "the conversation has no turn that is learnt", ""};
  messages = messages.first(last + 1);
  TAILOR_TRY(const auto asked, questions(messages, tools));
  TAILOR_TRY(const MarkedText whole, render(messages, tools, false));

  std::vector<MarkedText> shown(messages.size());  // a learnt turn at the end of its conversation
  std::vector<Answer> answers(messages.size());
  bool one_row = true;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (learn[i] == 0) continue;
    if (i == last) {
      shown[i] = whole;
    } else {
      TAILOR_TRY(shown[i], render(messages.first(i + 1), tools, false));
    }
    const Answer& answer = answers[i] = find_answer(shown[i], *asked[i], messages[i]);
    one_row = one_row && answer.goes_on && answer.ended &&
              whole.bytes.compare(0, answer.end, shown[i].bytes, 0, answer.end) == 0;
  }

  std::vector<TrainingRow> rows;
  if (!one_row) {
    for (std::size_t i = 0; i < messages.size(); ++i) {
      if (learn[i] == 0) continue;
      TrainingRow& row = rows.emplace_back();
      row.tokens = tokens_of(*asked[i], std::span(asked).first(i));
      row.mask.resize(row.tokens.size(), 0);
      append(row.tokens, answer_tokens(shown[i], answers[i]));
      row.mask.resize(row.tokens.size(), 1);
    }
    return rows;
  }
  // Answers end with control tokens, so cutting behind them changes no token.
  TrainingRow& row = rows.emplace_back();
  std::size_t begin = 0;
  const auto take = [&](std::size_t end, std::uint8_t mask) {
    append(row.tokens, encoder_.encode_marked(whole.part(begin, end), row.tokens.empty()));
    row.mask.resize(row.tokens.size(), mask);
    begin = end;
  };
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (!asked[i]) continue;
    const bool goes_on = asked[i]->size() > begin && whole.bytes.starts_with(asked[i]->bytes);
    if (goes_on) take(asked[i]->size(), 0);
    if (learn[i] != 0) take(answers[i].end, 1);
  }
  return rows;
}

TokenList ChatEncoder::raw_prompt(std::string_view text) const {
  return encoder_.encode(PromptText{{std::string(text), false}});
}

TrainingRow ChatEncoder::raw_row(std::string_view prompt, std::string_view completion) const {
  TrainingRow row;
  row.tokens = raw_prompt(prompt);
  row.mask.assign(row.tokens.size(), 0);
  append(row.tokens, encoder_.encode(PromptText{{std::string(completion), false}}, false));
  if (tokenizer().eos() >= 0) row.tokens.push_back(tokenizer().eos());
  row.mask.resize(row.tokens.size(), 1);
  return row;
}

}  // namespace tailor
