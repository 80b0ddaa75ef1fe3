#pragma once
/// A model's own chat template: conversations as the model was trained to see them.

#include <ctime>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "core/json.h"
#include "core/result.h"
#include "jinja/marked_text.h"
#include "model/tokenizer.h"

namespace tailor {

struct ChatMessage {
  std::string role;     // "system", "user", "assistant", "tool"
  std::string content;  // may be empty where the assistant calls tools
  /// The assistant's, or null: [{"type": "function", "id"?, "function": {"name", "arguments": {…}}}].
  Json tool_calls = nullptr;
  std::string tool_call_id = {};  // of a tool's answer; may be empty
  std::string name = {};          // of the tool that answers; may be empty
};

/// What a template has a place for, found by trying it.
struct ChatAbilities {
  bool system = false;
  bool tools = false;          // definitions of tools
  bool tool_calls = false;     // the assistant's
  bool tool_answers = false;   // the role "tool"
  bool argument_text = false;  // it wants the arguments of a call as JSON text, not as an object
  bool content_parts = false;  // it wants a content as [{"type": "text", "text": …}]
};

struct ChatTemplateOptions {
  Json variables = Json::object();      // the template's own, such as {"enable_thinking": false}
  std::optional<std::time_t> now = {};  // of strftime_now(); the time of make() where it is not given
};

/// Immutable and safe to share between threads.
class ChatTemplate {
 public:
  /// `source`: Jinja, as a GGUF carries it (tokenizer.chat_template). The tokenizer, which is not kept, says how BOS,
  /// EOS and others are spelt. Errors: not a template; one that cannot show a single message of a user.
  static Result<ChatTemplate> make(const std::string& source, const Tokenizer& tokenizer,
                                   const ChatTemplateOptions& options = {});
  /// ChatML, taken for models without a template of their own: "<|im_start|>role\ncontent<|im_end|>\n".
  static const char* chatml();

  /// The conversation; `answer_follows`: up to where the assistant's answer begins. `tools`: a list of {"type":
  /// "function", "function": {"name", …}}, or null. What people wrote is marked (MarkedText::foreign). Where a template
  /// has no place for a system's message, its text begins the first user's. A call without text has the content null,
  /// or
  /// "" where the template takes no null.
  /// Errors (kInvalidArgument): no place for the tools, calls or answers of tools that are there; what the template says
  /// where it refuses the conversation.
  Result<MarkedText> render(std::span<const ChatMessage> messages, const Json& tools, bool answer_follows) const;

  const ChatAbilities& abilities() const;

 private:
  struct Impl;
  explicit ChatTemplate(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

}  // namespace tailor
