#pragma once
/// Conversations as tokens: the one place that does it, for training and for serving, so that a model is asked in
/// exactly the tokens it learnt from. An assistant's answer (text, calls of tools, what the template puts around them)
/// always begins with a token of its own, as it does when the model writes it.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "infer/chat_template.h"
#include "prompt/prompt_text.h"

namespace tailor {

/// mask[i] = 1 where token i is learnt.
struct TrainingRow {
  TokenList tokens;
  std::vector<std::uint8_t> mask;  // as long as tokens
};

/// Threads: const calls may run concurrently.
class ChatEncoder {
 public:
  /// The tokenizer must outlive the encoder. Without a template there are only raw texts.
  ChatEncoder(const Tokenizer& tokenizer, std::optional<ChatTemplate> chat_template)
      : encoder_(tokenizer), chat_template_(std::move(chat_template)) {}

  /// Up to where the assistant's next answer begins. `tools`: see ChatTemplate::render().
  Result<TokenList> prompt(std::span<const ChatMessage> messages, const Json& tools = nullptr) const;
  /// What is learnt of a conversation: the turns i with learn[i], each with the token that ends it. One row, or one for
  /// each learnt turn where the template shows an earlier turn in another way than the one being answered, or ends it
  /// by no token. At least one turn must be learnt.
  Result<std::vector<TrainingRow>> rows(std::span<const ChatMessage> messages, std::span<const std::uint8_t> learn,
                                        const Json& tools = nullptr) const;

  /// Raw text before what the model writes; control tokens spelt in it stay text.
  TokenList raw_prompt(std::string_view text) const;
  /// `completion` and the end after raw_prompt(prompt); an empty prompt: all of it is learnt.
  TrainingRow raw_row(std::string_view prompt, std::string_view completion) const;

  const Tokenizer& tokenizer() const { return encoder_.tokenizer(); }
  bool can_chat() const { return chat_template_.has_value(); }
  const std::optional<ChatTemplate>& chat_template() const { return chat_template_; }

 private:
  struct Answer;
  Result<MarkedText> render(std::span<const ChatMessage> messages, const Json& tools, bool answer_follows) const;
  /// By number of message: what comes before an assistant's answer; nothing for others.
  Result<std::vector<std::optional<MarkedText>>> questions(std::span<const ChatMessage> messages,
                                                           const Json& tools) const;
  /// Where the answer stands in `shown`, which ends with its turn.
  Answer find_answer(const MarkedText& shown, const MarkedText& asked, const ChatMessage& message) const;
  TokenList answer_tokens(const MarkedText& shown, const Answer& answer) const;
  /// The tokens of `text`, cut where it goes on from one of `questions`.
  TokenList tokens_of(const MarkedText& text, std::span<const std::optional<MarkedText>> questions) const;

  PromptEncoder encoder_;
  std::optional<ChatTemplate> chat_template_;
};

}  // namespace tailor
