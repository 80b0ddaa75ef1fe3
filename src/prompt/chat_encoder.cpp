#include "prompt/chat_encoder.h"

#include <algorithm>

namespace tailor {
namespace {

constexpr std::string_view kAssistant = "assistant";

/// Whether `whole` begins with what comes before the text of turn `turn` in `asked`, which ends there.
bool asked_alike(const PromptText& whole, const PromptText& asked, std::size_t turn) {
  for (std::size_t i = 0; i <= 2 * turn; ++i) {
    if (whole[i].text != asked[i].text) return false;
  }
  return true;
}

/// What is encoded in one go: from one assistant's text to the next.
struct Stretch {
  PromptText text;
  int turn = -1;  // the assistant's turn that it begins with; -1: what comes before the first
};

std::vector<Stretch> stretches(const PromptText& pieces, std::span<const ChatMessage> messages) {
  std::vector<Stretch> out(1);
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const std::size_t turn = i / 2;
    if (i % 2 == 1 && messages[turn].role == kAssistant) out.push_back({{}, static_cast<int>(turn)});
    out.back().text.push_back(pieces[i]);
  }
  return out;
}

}  // namespace

void ChatEncoder::append(const PromptText& pieces, std::span<const ChatMessage> messages, TokenList& tokens) const {
  for (const Stretch& stretch : stretches(pieces, messages)) {
    const TokenList encoded = encoder_.encode(stretch.text, tokens.empty());
    tokens.insert(tokens.end(), encoded.begin(), encoded.end());
  }
}

Result<TokenList> ChatEncoder::prompt(std::span<const ChatMessage> messages) const {
  TAILOR_TRY(const PromptText pieces, render_chat(chat_template_, messages, true));
  TokenList tokens;
  append(pieces, messages, tokens);
  return tokens;
}

/// The text of an answer, then the template's text after it as far as the token that ends the turn.
TokenList ChatEncoder::learnt_tokens(const std::string& content, const std::string& after) const {
  const Tokenizer& tokenizer = encoder_.tokenizer();
  TokenList answer = encoder_.encode({{content, false}, {after, true}}, false);
  const auto end =
      std::find_if(answer.begin(), answer.end(), [&](std::int32_t t) { return tokenizer.ends_generation(t); });
  if (end != answer.end()) {
    answer.erase(end + 1, answer.end());
    return answer;
  }
  answer = encoder_.encode({{content, false}}, false);  // a template without an end of turn: the model's end of text
  if (tokenizer.eos() >= 0) answer.push_back(tokenizer.eos());
  return answer;
}

void ChatEncoder::append_learnt(const std::string& content, const std::string& after, TrainingRow& row) const {
  const TokenList answer = learnt_tokens(content, after);
  row.tokens.insert(row.tokens.end(), answer.begin(), answer.end());
  row.mask.resize(row.tokens.size(), 1);
}

Result<std::vector<TrainingRow>> ChatEncoder::rows(std::span<const ChatMessage> messages,
                                                   std::span<const std::uint8_t> learn) const {
  TAILOR_TRY(const PromptText whole, render_chat(chat_template_, messages, false));
  std::vector<PromptText> asked(messages.size());
  std::vector<std::size_t> learnt;
  bool one_row = true;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (learn[i] == 0) continue;
    TAILOR_TRY(asked[i], render_chat(chat_template_, messages.first(i), true));
    learnt.push_back(i);
    one_row = one_row && asked_alike(whole, asked[i], i);
  }
  if (learnt.empty()) return Error{ErrorCode::kInvalidArgument, "the conversation has no turn that is learnt", ""};

  std::vector<TrainingRow> rows;
  if (!one_row) {
    for (const std::size_t i : learnt) {
      TrainingRow& row = rows.emplace_back();
      append(asked[i], messages, row.tokens);
      row.mask.resize(row.tokens.size(), 0);
      append_learnt(whole[2 * i + 1].text, whole[2 * i + 2].text, row);
    }
    return rows;
  }
  TrainingRow& row = rows.emplace_back();
  for (const Stretch& stretch : stretches(whole, messages)) {
    const auto turn = static_cast<std::size_t>(std::max(stretch.turn, 0));
    const bool learns = stretch.turn >= 0 && learn[turn] != 0;
    if (turn == learnt.back() && learns) {
      append_learnt(whole[2 * turn + 1].text, whole[2 * turn + 2].text, row);
      break;
    }
    const std::size_t before = row.tokens.size();
    const TokenList encoded = encoder_.encode(stretch.text, before == 0);
    row.tokens.insert(row.tokens.end(), encoded.begin(), encoded.end());
    row.mask.resize(row.tokens.size(), 0);
    if (!learns) continue;
    const TokenList answer = learnt_tokens(whole[2 * turn + 1].text, whole[2 * turn + 2].text);
    const std::size_t own = common_length(encoded, answer);  // without an end that the template does not show here
    std::fill_n(row.mask.begin() + static_cast<std::ptrdiff_t>(before), own, std::uint8_t{1});
  }
  return rows;
}

TokenList ChatEncoder::raw_prompt(std::string_view text) const {
  return encoder_.encode({{std::string(text), false}});
}

TrainingRow ChatEncoder::raw_row(std::string_view prompt, std::string_view completion) const {
  TrainingRow row;
  row.tokens = raw_prompt(prompt);
  row.mask.assign(row.tokens.size(), 0);
  append_learnt(std::string(completion), "", row);
  return row;
}

}  // namespace tailor
