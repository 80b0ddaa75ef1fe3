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
  std::string reasoning = {};     // the assistant's, before its content; may be empty
};

/// What a template has a place for, found by trying it.
struct ChatAbilities {
  bool system = false;
  bool tools = false;          // definitions of tools
  bool tool_calls = false;     // the assistant's
  bool tool_answers = false;   // the role "tool"
  bool argument_text = false;  // it wants the arguments of a call as JSON text, not as an object
  bool content_parts = false;  // it wants a content as [{"type": "text", "text": …}]
  bool thoughts = false;       // its models think between <think> and </think> before they answer
};

struct ChatTemplateOptions {
  Json variables = Json::object();      // the template's own, such as {"enable_thinking": false}
  std::optional<std::time_t> now = {};  // of strftime_now(); the time of make() where it is not given
  std::string tool_use;  // the template of conversations with tools, where a model has one of its own; empty: none
};

/// A moment as packages and runs record it, "2026-06-01T12:00:00": the hands of the clock where it was made, so that a
/// template shows the same date on a machine in another time zone.
std::string template_date(std::time_t moment);
/// nullopt: not such a text.
std::optional<std::time_t> read_template_date(const std::string& text);

/// Immutable and safe to share between threads.
class ChatTemplate {
 public:
  /// `source`: Jinja, as a GGUF carries it (tokenizer.chat_template). The tokenizer, which is not kept, says how BOS,
  /// EOS and others are spelt. Errors: not a template; one that cannot show a single message of a user; a variable that
  /// no template of the model reads, or that is not for the user to set (messages, tools, …).
  static Result<ChatTemplate> make(const std::string& source, const Tokenizer& tokenizer,
                                   const ChatTemplateOptions& options = {});
  /// ChatML, taken for models without a template of their own: "<|im_start|>role\ncontent<|im_end|>\n".
  static const char* chatml();

  /// The conversation; `answer_follows`: up to where the assistant's answer begins. `tools`: a list of {"type":
  /// "function", "function": {"name", …}}, or null. What people wrote is marked (MarkedText::foreign). Where a template
  /// has no place for a system's message, its text begins the first user's. A call without text has the content null,
  /// or
  /// "" where the template takes no null.
  /// Errors (kInvalidArgument): no place for the tools, calls or answers of tools that are there; what the template
  /// says where it refuses the conversation.
  Result<MarkedText> render(std::span<const ChatMessage> messages, const Json& tools, bool answer_follows) const;

  /// `tools_offered`: of the template that then counts.
  const ChatAbilities& abilities(bool tools_offered = false) const;

 private:
  struct Impl;
  ChatTemplate(std::shared_ptr<const Impl> impl, std::shared_ptr<const Impl> with_tools)
      : impl_(std::move(impl)), with_tools_(std::move(with_tools)) {}
  static Result<std::shared_ptr<const Impl>> make_one(const std::string& source, const Tokenizer& tokenizer,
                                                      const ChatTemplateOptions& options);
  std::shared_ptr<const Impl> impl_;
  std::shared_ptr<const Impl> with_tools_;  // null: the same
};

}  // namespace tailor
