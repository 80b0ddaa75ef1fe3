#pragma once
/// What turns texts and conversations into a model's tokens, without the model's weights.

#include <filesystem>
#include <memory>
#include <string>

#include "data/chat_examples.h"
#include "model/gguf_file.h"
#include "prompt/chat_encoder.h"

namespace tailor {

/// How a model's chat template is rendered, beside the conversation: the same in training as in serving.
struct TemplateSettings {
  Json variables = Json::object();  // {"enable_thinking": false}
  std::string date;                 // that templates show (template_date()); empty: the present
};

/// The templates that a GGUF file carries.
struct ModelTemplates {
  std::string chat;      // tokenizer.chat_template; empty: none
  std::string tool_use;  // tokenizer.chat_template.tool_use, of conversations with tools; empty: the same
};
ModelTemplates model_templates(const GgufFile& file);

/// The encoder for examples of this form. A model without a chat template gets ChatML for conversations, and `note`
/// says so; else `note` stays as it is. Errors: those of ChatTemplate::make(); a date that is none.
Result<ChatEncoder> make_chat_encoder(const Tokenizer& tokenizer, const ModelTemplates& templates, ExampleForm form,
                                      const TemplateSettings& settings, const std::string& model_name,
                                      std::string& note);

/// Immutable and safe to share between threads.
class TextEncoder {
 public:
  /// Reads metadata and vocabulary of a GGUF file.
  static Result<TextEncoder> load(const std::filesystem::path& gguf, ExampleForm form,
                                  const TemplateSettings& settings = {});

  const ChatEncoder& encoder() const { return *encoder_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  int max_context() const { return max_context_; }
  int vocabulary() const { return static_cast<int>(tokenizer_->vocabulary_size()); }
  const std::string& note() const { return note_; }  // for the user; empty: none

 private:
  std::unique_ptr<const Tokenizer> tokenizer_;  // stays where the encoder looks for it
  std::unique_ptr<const ChatEncoder> encoder_;
  int max_context_ = 0;
  std::string note_;
};

}  // namespace tailor
