#include "fit/chat_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "core/hash.h"
#include "core/rng.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kFewestExamples = 10;  // of a file that is split
constexpr std::uint64_t kSplitStream = 71;

std::string_view name_of(ExampleForm form) {
  switch (form) {
    case ExampleForm::kChat:
      return "conversations";
    case ExampleForm::kCompletion:
      return "prompts with completions";
    case ExampleForm::kText:
      break;
  }
  return "texts";
}

ChatMessage message_of(const ChatTurn& turn) {
  return {turn.role, turn.content, turn.tool_calls, turn.tool_call_id, turn.name};
}

/// Equal for examples that ask the same.
std::uint64_t question_key(const ChatExample& example) {
  const Question q = last_question(example);
  std::uint64_t key = hash64(q.raw);
  for (const ChatMessage& m : q.messages) {
    key = hash64(m.content, hash64(m.role, key));
    if (!m.tool_calls.is_null()) key = hash64(dump_json(m.tool_calls), key);
  }
  return example.form == ExampleForm::kText ? hash64(q.answer) : key;
}

/// Whole groups of equal questions until the part has its share.
void split(PreparedChat& data, std::span<const std::size_t> candidates, TokenPart part, double fraction,
           std::uint64_t seed) {
  std::map<std::uint64_t, std::vector<std::size_t>> groups;
  for (const std::size_t i : candidates) {
    if (data.parts[i] == TokenPart::kTrain) groups[question_key(data.examples[i])].push_back(i);
  }
  std::vector<std::uint64_t> order;
  for (const auto& [key, members] : groups) order.push_back(key);
  Rng rng(seed, kSplitStream + static_cast<std::uint64_t>(part));
  rng.shuffle(order);
  const auto wanted = static_cast<std::size_t>(
      std::max<std::int64_t>(1, std::llround(fraction * static_cast<double>(candidates.size()))));
  std::size_t taken = 0;
  for (const std::uint64_t key : order) {
    if (taken >= wanted) break;
    for (const std::size_t i : groups[key]) data.parts[i] = part;
    taken += groups[key].size();
  }
}

/// Training examples that ask what a held-out example asks would be learnt by heart.
void leave_out_leaks(PreparedChat& data) {
  std::map<std::uint64_t, TokenPart> held_out;
  for (std::size_t i = 0; i < data.examples.size(); ++i) {
    if (data.parts[i] != TokenPart::kTrain) held_out.emplace(question_key(data.examples[i]), data.parts[i]);
  }
  std::vector<ChatExample> examples;
  std::vector<TokenPart> parts;
  std::size_t leaks = 0;
  std::uint32_t first_line = 0;
  for (std::size_t i = 0; i < data.examples.size(); ++i) {
    if (data.parts[i] == TokenPart::kTrain && held_out.contains(question_key(data.examples[i]))) {
      if (leaks++ == 0) first_line = data.examples[i].line;
      continue;
    }
    examples.push_back(std::move(data.examples[i]));
    parts.push_back(data.parts[i]);
  }
  data.examples = std::move(examples);
  data.parts = std::move(parts);
  if (leaks > 0)
    data.warnings.push_back(
        fmt::format("{} training example(s) ask what an example of --validation or --test asks, and are left out (the "
                    "first is line {})",
                    leaks, first_line));
}

}  // namespace

std::vector<std::size_t> PreparedChat::of(TokenPart part) const {
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (parts[i] == part) out.push_back(i);
  }
  return out;
}

Result<PreparedChat> prepare_chat(const DataOptions& options) {
  PreparedChat data;
  const auto read = [&](const fs::path& file, TokenPart part) -> Status {
    TAILOR_TRY(ChatData chat,
               read_chat_examples(file, {.max_text_bytes = options.max_text_bytes, .encoding = options.encoding}));
    const ExampleForm form = chat.examples.front().form;
    if (data.file_names.empty()) {
      data.form = form;
      data.shape = std::string(to_string(chat.shape));
    } else if (form != data.form) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{} holds {}, but {} holds {}", file.string(), name_of(form), data.file_names.front(),
                               name_of(data.form)),
                   "give files of one kind"};
    }
    for (ChatExample& example : chat.examples) {
      data.examples.push_back(std::move(example));
      data.parts.push_back(part);
    }
    for (const std::string& warning : chat.warnings) data.warnings.push_back(warning);
    TAILOR_TRY(std::string hash, sha256_file(file));
    data.file_names.push_back(file.string());
    data.file_hashes.push_back(std::move(hash));
    return {};
  };
  TAILOR_CHECK(read(options.data, TokenPart::kTrain));
  const std::size_t own = data.examples.size();
  if (!options.validation_file.empty()) TAILOR_CHECK(read(options.validation_file, TokenPart::kValidation));
  if (!options.test_file.empty()) TAILOR_CHECK(read(options.test_file, TokenPart::kTest));
  if (data.file_names.size() > 1) leave_out_leaks(data);

  const bool splits = options.validation_file.empty() || options.test_file.empty();
  if (splits && own < kFewestExamples) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("{} holds {} usable example(s), at least {} are needed to keep some for validation and test",
                    options.data.string(), own, kFewestExamples),
        "add examples, or name files with --validation and --test"};
  }
  const std::vector<std::size_t> candidates = data.of(TokenPart::kTrain);
  if (options.test_file.empty()) split(data, candidates, TokenPart::kTest, options.test_fraction, options.seed);
  if (options.validation_file.empty())
    split(data, candidates, TokenPart::kValidation, options.validation_fraction, options.seed);
  if (data.of(TokenPart::kTrain).empty()) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("{}: no example is left to train on: too few ask something of their own", options.data.string()),
        "add examples that differ, or lower --validation-fraction and --test-fraction"};
  }
  return data;
}

Question last_question(const ChatExample& example) {
  Question q;
  std::size_t last = example.turns.size() - 1;
  while (last > 0 && !example.turns[last].learn) --last;
  q.answer = example.turns[last].content;
  q.tools = example.tools;
  for (std::size_t i = 0; i < last; ++i) {
    const ChatTurn& turn = example.turns[i];
    if (example.form == ExampleForm::kChat)
      q.messages.push_back(message_of(turn));
    else
      q.raw = turn.content;
  }
  return q;
}

Result<std::vector<TrainingRow>> rows_of_example(const ChatExample& example, const ChatEncoder& encoder) {
  if (example.form != ExampleForm::kChat) {
    const Question q = last_question(example);
    return std::vector<TrainingRow>{encoder.raw_row(q.raw, q.answer)};
  }
  std::vector<ChatMessage> messages;
  std::vector<std::uint8_t> learn;
  for (const ChatTurn& turn : example.turns) {
    messages.push_back(message_of(turn));
    learn.push_back(turn.learn ? 1 : 0);
  }
  return encoder.rows(messages, learn, example.tools);
}

Result<std::string> wanted_answer(const ChatExample& example, const ChatEncoder& encoder) {
  const Question q = last_question(example);
  const bool calls = std::any_of(example.turns.begin(), example.turns.end(),
                                 [](const ChatTurn& turn) { return turn.learn && !turn.tool_calls.is_null(); });
  if (!calls) return q.answer;
  TAILOR_TRY(const std::vector<TrainingRow> rows, rows_of_example(example, encoder));
  const TrainingRow& row = rows.back();
  const auto begin = std::find(row.mask.rbegin(), row.mask.rend(), 0) - row.mask.rbegin();
  return encoder.tokenizer().decode(std::span(row.tokens).last(static_cast<std::size_t>(begin)), false);
}

Result<ChatTokens> tokenize_chat(const PreparedChat& data, const ChatEncoder& encoder, int vocabulary,
                                 std::size_t max_tokens) {
  ChatTokens out;
  out.file.vocab_size = vocabulary;
  std::uint32_t first_truncated = 0, first_dropped = 0;
  for (std::size_t i = 0; i < data.examples.size(); ++i) {
    const ChatExample& example = data.examples[i];
    auto rows = rows_of_example(example, encoder);
    if (!rows) {
      return Error{rows.error().code, fmt::format("line {}: {}", example.line, rows.error().message),
                   rows.error().hint};
    }
    for (TrainingRow& row : *rows) {
      out.longest = std::max(out.longest, row.tokens.size());
      if (row.tokens.size() > max_tokens) {
        row.tokens.resize(max_tokens);
        row.mask.resize(max_tokens);
        const bool empty = std::find(row.mask.begin() + 1, row.mask.end(), 1) == row.mask.end();
        if ((empty ? out.dropped : out.truncated)++ == 0) (empty ? first_dropped : first_truncated) = example.line;
        if (empty) continue;
      }
      const std::int64_t learnt = std::accumulate(row.mask.begin() + 1, row.mask.end(), std::int64_t{0});
      out.longest_answer = std::max(out.longest_answer, learnt);
      if (data.parts[i] == TokenPart::kTrain) out.learnt += learnt;
      out.file.add_row(row.tokens, -1, data.parts[i], static_cast<std::int64_t>(i), row.mask);
    }
  }
  if (out.truncated > 0)
    out.warnings.push_back(
        fmt::format("{} row(s) have more than {} tokens and lose their end, the token that ends the "
                    "answer included (the first is line {}); --max-tokens raises the limit",
                    out.truncated, max_tokens, first_truncated));
  if (out.dropped > 0)
    out.warnings.push_back(
        fmt::format("{} row(s) are left out: their answers begin after {} tokens (the first is line "
                    "{}); --max-tokens raises the limit",
                    out.dropped, max_tokens, first_dropped));
  for (const auto& [part, name] : {std::pair{TokenPart::kTrain, "training"}, {TokenPart::kTest, "test"}}) {
    if (std::find(out.file.parts.begin(), out.file.parts.end(), part) == out.file.parts.end())
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("no {} row is left of {} tokens or fewer", name, max_tokens), "raise --max-tokens"};
  }
  return out;
}

}  // namespace tailor
