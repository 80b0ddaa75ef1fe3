#include "fit/text_encoder.h"

#include <fmt/format.h>

#include "model/gguf_file.h"

namespace tailor {

Result<ChatEncoder> make_chat_encoder(const Tokenizer& tokenizer, const std::string& chat_template, ExampleForm form,
                                      const std::string& model_name, std::string& note) {
  if (form != ExampleForm::kChat) return ChatEncoder(tokenizer, std::nullopt);
  if (chat_template.empty()) {
    note = fmt::format("{} has no chat template of its own: ChatML is taken, in training as in serving", model_name);
  }
  auto made = ChatTemplate::make(chat_template.empty() ? ChatTemplate::chatml() : chat_template, tokenizer);
  if (!made)
    return Error{made.error().code, fmt::format("{}: {}", model_name, made.error().message), made.error().hint};
  return ChatEncoder(tokenizer, std::move(*made));
}

Result<TextEncoder> TextEncoder::load(const std::filesystem::path& gguf, ExampleForm form) {
  TextEncoder out;
  std::string source;
  {
    TAILOR_TRY(const GgufFile file, GgufFile::open(gguf));
    TAILOR_TRY(const std::string architecture, file.architecture());
    TAILOR_TRY(const std::int64_t context, file.integer(architecture + ".context_length"));
    out.max_context_ = static_cast<int>(context);
    const GgufValue* value = file.find("tokenizer.chat_template");
    if (value != nullptr && value->as_string()) source = std::string(*value->as_string());
  }
  TAILOR_TRY(Tokenizer tokenizer, Tokenizer::load(gguf));
  out.tokenizer_ = std::make_unique<const Tokenizer>(std::move(tokenizer));
  TAILOR_TRY(ChatEncoder encoder,
             make_chat_encoder(*out.tokenizer_, source, form, gguf.filename().string(), out.note_));
  out.encoder_ = std::make_unique<const ChatEncoder>(std::move(encoder));
  return out;
}

}  // namespace tailor
