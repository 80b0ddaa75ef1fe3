#pragma once
/// Conversations, instructions and completions as `tailor tune` learns from them: read, split, and in tokens.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/token_file.h"
#include "data/chat_examples.h"
#include "fit/options.h"
#include "prompt/chat_encoder.h"

namespace tailor {

/// The examples of all files with the part that each stands in. Examples that ask the same stand in one part.
struct PreparedChat {
  std::vector<ChatExample> examples;  // of the data file, then --validation's, then --test's
  std::vector<TokenPart> parts;       // by example
  ExampleForm form = ExampleForm::kChat;
  std::string shape;                     // as people call it: "messages", "alpaca", …
  std::vector<std::string> file_names;   // as given
  std::vector<std::string> file_hashes;  // SHA-256
  std::vector<std::string> warnings;

  std::vector<std::size_t> of(TokenPart part) const;
};

/// Errors: those of reading; files of different forms; too few examples to split.
Result<PreparedChat> prepare_chat(const DataOptions& options);

/// The messages before the last learnt turn of a chat, or the prompt of a completion; and that turn's text.
struct Question {
  std::vector<ChatMessage> messages;  // chat
  std::string raw;                    // completion; empty for kText
  std::string answer;
  Json tools = nullptr;
};
Question last_question(const ChatExample& example);
/// The text of that turn as the model writes it: with its calls of tools, as its template shows them.
Result<std::string> wanted_answer(const ChatExample& example, const ChatEncoder& encoder);

/// What became of the examples when they were tokenised.
struct ChatTokens {
  TokenFile file;  // row ids: numbers of examples; no labels
  std::size_t truncated = 0, dropped = 0;
  std::int64_t learnt = 0;            // tokens of the training part
  std::vector<std::string> warnings;  // with the first line concerned
  std::size_t longest = 0;            // row, before it was cut
  std::int64_t longest_answer = 0;    // learnt tokens of one row
};

/// Rows of more than `max_tokens` lose their end; those whose answers lie beyond it are left out. An example that the
/// model's chat template refuses is an error that names its file and line.
Result<ChatTokens> tokenize_chat(const PreparedChat& data, const ChatEncoder& encoder, int vocabulary,
                                 std::size_t max_tokens);

/// One example's rows before they are cut.
Result<std::vector<TrainingRow>> rows_of_example(const ChatExample& example, const ChatEncoder& encoder);

}  // namespace tailor
