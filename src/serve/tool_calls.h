#pragma once
/// Calls of tools in a model's answers. How a model writes a call is read from its own chat template: a conversation
/// with a call is rendered, and what stands around the call's JSON is what an answer is searched for.

#include <optional>
#include <string>
#include <vector>

#include "infer/chat_template.h"
#include "serve/field_reader.h"

namespace tailor {

struct ToolFormat {
  std::string open, close;              // around one call: "<tool_call>\n", "\n</tool_call>"
  std::string name_key, arguments_key;  // "name", "arguments" or "parameters"

  /// None: the template writes calls in another way than as a JSON object.
  static std::optional<ToolFormat> of(const ChatTemplate& chat_template);
};

struct ToolCall {
  std::string id, name, arguments;  // the arguments as JSON text
};

/// An answer in which calls may stand. What may be the beginning of one is held back. Threads: one at a time.
class ToolCallReader {
 public:
  /// Not `parallel`: the answer ends with its first call, and what follows that is left out. Where nothing opens a call
  /// in this format, it is an object that stands before all other text and names one of `tools`.
  explicit ToolCallReader(ToolFormat format, bool parallel = true, std::vector<std::string> tools = {})
      : format_(std::move(format)), parallel_(parallel), tools_(std::move(tools)) {}
  /// What of the text may be shown now.
  std::string add(std::string_view text);
  /// The answer is at its end: what was held back and is no call.
  std::string finish();
  const std::vector<ToolCall>& calls() const { return calls_; }
  bool at_end() const { return !parallel_ && !calls_.empty(); }  // nothing that follows belongs to the answer

 private:
  bool take_call(std::string_view object);
  ToolFormat format_;
  bool parallel_;
  std::vector<std::string> tools_;
  bool said_ = false;  // text that is no blank was shown
  std::string held_;
  bool inside_ = false;  // held_ begins with a call's JSON
  std::vector<ToolCall> calls_;
};

/// What a request says of tools.
struct ToolRequest {
  Json tools = nullptr;  // as ChatTemplate::render() takes them; null: none are offered
  std::string forced;    // of tool_choice: the function that must be called; "*": any; empty: as the model likes
  bool parallel = true;  // an answer may call more than one

  std::vector<std::string> names() const;
};
/// "tools", "tool_choice" and "parallel_tool_calls"; what is wrong or without effect is left in `in`. Fields of a
/// function that are none of OpenAI's count as such, though the chat template is handed them.
ToolRequest read_tool_request(FieldReader& in);

/// The schema of one call's JSON object in this format, of the tools that may be called.
Json call_schema(const ToolFormat& format, const ToolRequest& request);

}  // namespace tailor
