#pragma once
/// Conversations as tokens: the one place that does it, for training and for serving, so that a model is asked in
/// exactly the tokens it learnt from. An assistant's text always begins with a token of its own, as it does when the
/// model writes it.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "prompt/chat_text.h"

namespace tailor {

/// mask[i] = 1 where token i is learnt.
struct TrainingRow {
  TokenList tokens;
  std::vector<std::uint8_t> mask;  // as long as tokens
};

/// Threads: const calls may run concurrently.
class ChatEncoder {
 public:
  /// The tokenizer must outlive the encoder. `chat_template` may be empty: then there are only raw texts.
  ChatEncoder(const Tokenizer& tokenizer, std::string chat_template)
      : encoder_(tokenizer), chat_template_(std::move(chat_template)) {}

  /// Up to where the assistant's next answer begins.
  Result<TokenList> prompt(std::span<const ChatMessage> messages) const;
  /// What is learnt of a conversation: the turns i with learn[i], each with the token that ends it. One row, or one for
  /// each learnt turn where the template shows an earlier turn in another way than the one being answered. At least
  /// one turn must be learnt.
  Result<std::vector<TrainingRow>> rows(std::span<const ChatMessage> messages,
                                        std::span<const std::uint8_t> learn) const;

  /// Raw text before what the model writes; control tokens spelt in it stay text.
  TokenList raw_prompt(std::string_view text) const;
  /// `completion` and the end after raw_prompt(prompt); an empty prompt: all of it is learnt.
  TrainingRow raw_row(std::string_view prompt, std::string_view completion) const;

  const Tokenizer& tokenizer() const { return encoder_.tokenizer(); }
  bool can_chat() const { return !chat_template_.empty(); }

 private:
  /// Appends the tokens of `pieces`, cut where an assistant's text begins.
  void append(const PromptText& pieces, std::span<const ChatMessage> messages, TokenList& tokens) const;
  TokenList learnt_tokens(const std::string& content, const std::string& after) const;
  void append_learnt(const std::string& content, const std::string& after, TrainingRow& row) const;

  PromptEncoder encoder_;
  std::string chat_template_;
};

}  // namespace tailor
