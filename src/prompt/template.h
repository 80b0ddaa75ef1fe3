#pragma once
/// Prompts for classification: instruction, list of labels (or none), demonstrations, the message, and a cue after
/// which the label is scored as a continuation.
///
///   plain                                      chat (by the model's own chat template)
///   <instruction>                              system     <instruction> [labels]
///   Labels: a; b; c                            user       Message: <demonstration>
///   Message: <demonstration>                   assistant  <its label>
///   Label: <its label>                         user       Message: <message>
///   Message: <message>                         assistant  …
///   Label:

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/result.h"
#include "infer/chat_template.h"
#include "infer/label_scorer.h"
#include "prompt/prompt_text.h"

namespace tailor {

/// What is scored after a label's text, so that a label that begins another can end.
enum class LabelEnd : std::uint8_t {
  kAuto,  // none where no label begins another: a third fewer tokens to compute; else newline (chat: end of turn)
  kNone,
  kNewline,
  kEndOfTurn,  // the model's EOS token
};

struct PromptTemplate {
  bool chat = false;
  std::string instruction = "Classify the customer's message.";
  bool list_labels = false;  // costs tokens once a run: it is part of the shared prefix
  std::string message_name = "Message";
  std::string label_name = "Label";
  LabelEnd end = LabelEnd::kAuto;
  int max_message_tokens = 512;  // longer messages lose their middle
  int max_demonstration_tokens = 128;

  Json to_json() const;
  static Result<PromptTemplate> from_json(const Json& json);
};

/// One worked example in a prompt.
struct Demonstration {
  std::string text;
  std::int32_t label = 0;
};

/// A template bound to a model and to labels. Immutable; threads may share it.
class PromptBuilder {
 public:
  /// `label_texts`: as the model shall read and write them ("card arrival"), unique, not blank. `chat_template`: the
  /// model's; only used by chat templates. The tokenizer must outlive the builder.
  static Result<PromptBuilder> make(const Tokenizer& tokenizer, const std::string& chat_template, int max_context,
                                    PromptTemplate settings, std::vector<std::string> label_texts);

  /// The tokens up to where the label begins. Line breaks in texts become blanks, control tokens in them stay text. Too
  /// many demonstrations for the context: the first (farthest) are left out; a message that is still too long loses its
  /// middle.
  Result<TokenList> prompt(std::string_view message, std::span<const Demonstration> demonstrations) const;
  /// prompt(message, {}) appended to `out`, without an allocation for usual messages. `scratch` is overwritten.
  Status append_prompt(std::string_view message, std::string& scratch, TokenList& out) const;
  /// The same as text, for people.
  std::string prompt_text(std::string_view message, std::span<const Demonstration> demonstrations) const;

  /// Tokens of each label where prompt() ends, end included.
  const std::vector<TokenList>& labels() const { return labels_; }
  const std::vector<std::string>& label_texts() const { return label_texts_; }
  const PromptTemplate& settings() const { return settings_; }
  LabelEnd end() const { return end_; }

  /// What all prompts with these (fixed) demonstrations begin with; empty span: what all prompts begin with.
  Result<TokenList> common_prefix(std::span<const Demonstration> fixed) const;

 private:
  PromptBuilder(const Tokenizer& tokenizer, PromptTemplate settings)
      : encoder_(tokenizer), settings_(std::move(settings)) {}
  std::string opening() const;
  PromptText render(std::string_view message, std::span<const Demonstration> demonstrations) const;
  Status find_labels();
  std::string shortened(std::string_view text, int max_tokens) const;

  PromptEncoder encoder_;
  PromptTemplate settings_;
  std::vector<std::string> label_texts_;
  LabelEnd end_ = LabelEnd::kNone;
  int max_context_ = 0;
  int longest_label_ = 0;
  std::vector<TokenList> labels_;
  std::string before_message_, after_message_;  // of prompts that are no chats and have no demonstrations
  TokenList cue_tail_;  // last tokens of every prompt that are scored with the label: the text joins there
  std::optional<ChatTemplate> chat_template_;  // of chat prompts
};

/// A label as a person would say it: '_' and repeated blanks become one blank. Where that makes two labels equal (or
/// empty), all keep their own spelling.
std::vector<std::string> readable_labels(std::span<const std::string> labels);

}  // namespace tailor
