#pragma once
/// Training data for models that write: conversations, instructions, prompts with completions, plain texts. Read from
/// JSONL (one object a line), one JSON array of objects, or CSV/TSV, in the shapes in which other tools keep them:
///
///   kMessages          {"messages": [{"role", "content", "weight"?}], "system"?, "tools"?}    OpenAI, Hugging Face
///   kShareGpt          {"conversations": [{"from", "value"} or {"role", "content"}], "system"?, "tools"?}
///   kAlpaca            {"instruction", "output", "input"?, "system"?, "history"?: [[user, assistant]]}
///   kBedrock           {"schemaVersion", "system"?: [{"text"}], "messages": [{"role", "content": [{"text"}]}]}
///   kPromptCompletion  {"prompt", "completion"}, both texts or both lists of messages      TRL, OpenAI, Bedrock
///   kText              {"text"}
///
/// CSV and TSV have kAlpaca (no history), kPromptCompletion (texts) and kText by their columns. Empty lines are
/// skipped; a key whose value is null counts as absent. Nothing is dropped without a warning that counts it: keys that
/// are not used, turns that are cut, examples that are left out or stand there twice.
///
/// Calls of tools: "tools" of a row, "tool_calls" of an assistant's message and messages of the role "tool" with
/// "tool_call_id", as OpenAI has them; the older "functions", "function_call" and role "function"; and ShareGPT's
/// "function_call" and "observation".

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "core/result.h"

namespace tailor {

enum class ChatShape : std::uint8_t { kMessages, kShareGpt, kAlpaca, kBedrock, kPromptCompletion, kText };
std::string_view to_string(ChatShape shape);  // for people: "chat messages", "ShareGPT conversations", ...

enum class ExampleForm : std::uint8_t {
  kChat,        // rendered by the model's chat template
  kCompletion,  // raw: turns "prompt" and "completion"
  kText,        // raw: one turn "text", all of it learnt
};

struct ChatTurn {
  std::string role;     // "system" | "user" | "assistant" | "tool", or "prompt" | "completion", or "text"
  std::string content;  // not blank, except a system's, a tool's, and an assistant's that calls tools; no NUL
  bool learn = false;   // its tokens are targets
  /// An assistant's, or null: [{"type": "function", "id"?, "function": {"name", "arguments": {…}}}].
  Json tool_calls = nullptr;
  std::string tool_call_id = {}, name = {};  // of a tool's answer; may be empty
  bool operator==(const ChatTurn&) const = default;
};

/// In a chat the system stands first if at all, then user and assistant alternate from a user to an assistant; between
/// an assistant's calls and what follows stand the tools' answers. At least one turn is learnt.
struct ChatExample {
  ExampleForm form = ExampleForm::kChat;
  std::vector<ChatTurn> turns;
  Json tools = nullptr;    // [{"type": "function", "function": {"name", …}}], or null
  std::uint32_t line = 0;  // 1-based: line of the file (JSONL, CSV), or place in the JSON array
};

struct ChatData {
  std::string file;  // as given, for messages
  ChatShape shape = ChatShape::kMessages;
  std::vector<ChatExample> examples;  // in the file's order, at least one, all of one form, no two with equal turns
  std::vector<std::string> warnings;  // a sentence each, with counts and the first place
  std::size_t rows = 0;               // read: examples.size() + duplicates + left_out
  std::size_t duplicates = 0;         // rows whose turns equal those of an earlier one
  std::size_t left_out = 0;           // rows in which nothing is learnt
  std::size_t cut = 0;                // rows that lost turns after the last assistant's
};

struct ChatReadOptions {
  std::size_t max_text_bytes = std::size_t{1} << 20;  // of one turn, in UTF-8; longer is an error
  std::size_t max_turns = 1000;                       // of one example; more is an error
  std::string encoding;                               // "": UTF-8, or by the byte order mark; see CsvOptions
};

/// Every assistant turn is learnt except those of "weight" 0, and those inside the "prompt" of kPromptCompletion, where
/// "weight" 1 says otherwise. Parts of a content are joined as they stand, the blocks of a "system" list by an empty
/// line, "instruction" and "input" too.
/// Errors, with file, line and remedy: file absent, unreadable, a directory, empty, of another ending; bytes of another
/// encoding, NUL; broken or deeply nested JSON; a row that is no object, of no known shape, or of another shape than
/// the first; preference data; a key that is missing, twice there or of the wrong type; a text that is blank or above
/// the limit; an unknown role; roles out of order; tools without a name, calls without JSON arguments, answers to no
/// call; parts that are no text; a weight other than 0 and 1; nothing left to learn from.
Result<ChatData> read_chat_examples(const std::filesystem::path& file, const ChatReadOptions& options = {});
/// The same for bytes in memory; `name` stands for the file in messages, and its ending decides how they are read.
Result<ChatData> parse_chat_examples(std::string bytes, const std::string& name, const ChatReadOptions& options = {});

/// Whether read_chat_examples() is the reader for this file, by its ending and first record: JSON of one of the shapes
/// (or of preference data, which it refuses by name), or a CSV/TSV with the columns instruction and output, or prompt
/// and completion. Reads little; false where the file cannot be read. Never reads from a pipe.
bool looks_like_chat_data(const std::filesystem::path& file);

}  // namespace tailor
